"""Processes that work for this one."""

import contextlib
import multiprocessing
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess

from electra_jax.system.ending import follow_parent


def worker_pool(
    workers: int, initializer: Callable[..., None] | None = None, arguments: tuple = ()
) -> ProcessPoolExecutor:
    """A pool of processes that end with this one.

    They are new processes, as forking one with threads (JAX's, for one) can hang the child, and do
    not run the caller's script again: it need not guard what it does by its `__name__`.

    Args:
      workers: how many.
      initializer: a function of a module, called first in each of them.
      arguments: what it is given.
    """
    return ProcessPoolExecutor(
        workers, mp_context=_Context(), initializer=_begin, initargs=(initializer, arguments)
    )


class _Worker(SpawnProcess):
    def start(self) -> None:
        with _unnamed_script():
            super().start()


class _Context(SpawnContext):
    Process = _Worker  # type: ignore[assignment]


@contextlib.contextmanager
def _unnamed_script() -> Iterator[None]:
    """Lets a new process find no script that it would import."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _begin(initializer: Callable[..., None] | None, arguments: tuple) -> None:
    follow_parent()
    if initializer is not None:
        initializer(*arguments)


def may_have_workers() -> bool:
    """False in a daemonic process of `multiprocessing`, which may not have any."""
    return not multiprocessing.current_process().daemon
