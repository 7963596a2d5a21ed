"""The processes of a run: signals, the compilation cache, global arrays."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding


class StopSignal:
    """Notes SIGINT and SIGTERM, so that a run ends between two steps with all saved.

    A second SIGINT interrupts at once. Use as a context manager.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> "StopSignal":
        self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again.

    JAX_COMPILATION_CACHE_DIR chooses the folder, or turns it off where it is empty.
    """
    default = Path.home() / ".cache" / "electra_jax" / "xla"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)


def global_batches(
    batches: Iterable[Mapping[str, np.ndarray]], sharding: Sharding
) -> Iterator[dict[str, jax.Array]]:
    """Each process's rows [B / processes, L] as global arrays [B, L], one batch ahead.

    The copy of the next batch to the devices so overlaps with the step at hand.
    """
    ahead = None
    for batch in batches:
        placed = {
            name: jax.make_array_from_process_local_data(sharding, rows)
            for name, rows in batch.items()
        }
        if ahead is not None:
            yield ahead
        ahead = placed
    if ahead is not None:
        yield ahead


def fetch(arrays: Any) -> Any:
    """Global arrays on the host, whole, in every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(arrays, tiled=True)
    return jax.device_get(arrays)
