"""Errors of saves and restores, taken from where Orbax and TensorStore leave them."""

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from electra_jax.errors import ElectraError


class SaveFailed(ElectraError):
    """A checkpoint could not be written; launchers try again, a few times."""

    status = 1


class SaveErrors(logging.Filter):
    """Takes the error of a save from Orbax's log.

    Orbax logs it at once, but raises it only after its threads, and other processes, have waited
    for each other, for minutes.

    Attributes:
      error: the first, once there is one.
      saving: whether there has been a save: an error before that is a restore's, which raises it.
    """

    error: BaseException | None = None
    saving: bool = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self.saving and record.exc_info:
            self.error = self.error or record.exc_info[1]
            return False
        return True


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Of a restore that fails, lets the first error be raised, and keeps the others silent."""
    restore_hooks = silence_left_overs()
    yield
    restore_hooks()  # not after an error: what is left over is yet to come


def silence_left_overs() -> Callable[[], None]:
    """Keeps silent what ends some time after the first error; returns the way back.

    Reads and writes that are under way beside it end in threads of TensorStore and when their
    coroutines are collected, each with a traceback on standard error.
    """
    hook, asyncio_log = sys.unraisablehook, logging.getLogger("asyncio")
    still_quiet = _is_retrieved in asyncio_log.filters  # after an earlier restore that failed

    def quiet(unraisable: Any) -> None:
        if not _is_left_over(unraisable):
            hook(unraisable)

    def restore_hooks() -> None:
        if sys.unraisablehook is quiet:
            sys.unraisablehook = hook
        if not still_quiet:
            asyncio_log.removeFilter(_is_retrieved)

    sys.unraisablehook = quiet
    asyncio_log.addFilter(_is_retrieved)
    return restore_hooks


def _is_left_over(unraisable: Any) -> bool:
    if isinstance(unraisable.exc_value, RuntimeError) and (
        str(unraisable.exc_value) == "Event loop is closed"
    ):
        return True
    owner = unraisable.object
    return inspect.iscoroutine(owner) and "orbax" in owner.cr_code.co_filename


def _is_retrieved(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()
