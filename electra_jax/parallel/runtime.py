"""The processes of a run: how they start and stop together, and the arrays they share."""

import contextlib
import os
import secrets
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding

from electra_jax.errors import ElectraError, Stopped, UsageError
from electra_jax.parallel import rendezvous
from electra_jax.parallel.mesh import batch_sharding, local_rows
from electra_jax.parallel.preemption import take_over
from electra_jax.parallel.watchdog import ending_together, report_failure


@contextlib.contextmanager
def process_group(
    fingerprint: Callable[[], Mapping[str, Any]], processes: rendezvous.ProcessesConfig
) -> Iterator[None]:
    """A command together with its other processes, if there are any (see `rendezvous.join`).

    An error in one ends all: the others would wait for it for ever. SIGTERM, where no run is
    there to save itself, ends a process that is alone with `Stopped`.
    """
    rendezvous.join(fingerprint, processes)
    if jax.process_count() == 1:
        previous = signal.signal(signal.SIGTERM, _stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
        return
    take_over()
    try:
        with ending_together():
            yield
    except Stopped:
        raise
    except BaseException as error:
        if isinstance(error, ElectraError):
            status = error.status
            print(f"electra-jax: {error}", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            status = 130
        else:
            status = 1
            traceback.print_exc()
        with contextlib.suppress(Exception):
            report_failure((str(error) or repr(error)).splitlines()[0], status)
        sys.stderr.flush()
        os._exit(status)  # JAX's own way out waits for the others


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number, "stopped; rerun the command to resume from the last checkpoint")


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def check_shared(folder: Path) -> None:
    """Makes a run directory, and checks that all processes see the same one.

    Raises:
      UsageError: it cannot be made, or is not on a file system that they share.
    """
    if is_main():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made a run directory: {error}") from error
    if jax.process_count() == 1:
        return
    probe = folder / f".shared-{int(broadcast_from_main(secrets.randbelow(2**24)))}"
    if is_main():
        probe.touch()
    barrier("the run directory is made")
    seen = multihost_utils.process_allgather(np.array(probe.exists()))
    if is_main():
        probe.unlink()
    if not seen.all():
        blind = ", ".join(map(str, np.flatnonzero(~seen)))
        raise UsageError(
            f"process {blind} does not see {folder} as process 0 does: the run directory must be "
            "on a file system that all share"
        )


def broadcast_from_main(value: float) -> float:
    """The value of process 0, as a float32; all processes must ask at the same time."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float64(value)))


def is_main() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a restart does not compile again.

    JAX_COMPILATION_CACHE_DIR chooses the folder, or turns it off where it is empty.
    """
    default = Path.home() / ".cache" / "electra_jax" / "xla"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(default))
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)


def global_batches(
    read: Callable[[np.ndarray], Iterable[Mapping[str, np.ndarray]]], mesh: Mesh, count: int
) -> Iterator[dict[str, jax.Array]]:
    """Global arrays [count, …] of which each process reads its rows, one batch ahead.

    The copy of the next batch to the devices so overlaps with the step at hand. Where a
    process's devices lie in the mesh says which rows are its own, so that every mesh trains
    on the same batch, row for row.

    Args:
      read: numbers of rows → batches of those rows.
      mesh: of the devices that the rows are spread over.
      count: rows of a global batch.
    """
    sharding, rows = batch_sharding(mesh), local_rows(mesh, count)

    def place(part: np.ndarray) -> jax.Array:
        def shard(index: tuple[slice, ...]) -> np.ndarray:
            first, end, _ = index[0].indices(count)
            at = np.searchsorted(rows, first)
            return part[at : at + end - first]

        return from_callback((count, *part.shape[1:]), sharding, shard)

    ahead = None
    for batch in read(rows):
        placed = {name: place(part) for name, part in batch.items()}
        if ahead is not None:
            yield ahead
        ahead = placed
    if ahead is not None:
        yield ahead


def to_global(value: np.ndarray, sharding: Sharding) -> jax.Array:
    """A host array, the same in every process, as a global one."""
    return from_callback(value.shape, sharding, lambda index: value[index])


def from_callback(shape: tuple[int, ...], sharding: Sharding, shard: Callable) -> jax.Array:
    """A global array of shards that are on the host. A copy to the devices that is meant."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_callback(shape, sharding, shard)


def to_host(arrays: Any) -> Any:
    """Global arrays on the host, whole, in every process."""
    leaves = jax.tree.leaves(arrays)
    if all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves):
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def to_devices(arrays: Any, shardings: Any) -> Any:
    """The inverse of `fetch`."""
    return jax.tree.map(lambda x, s: to_global(np.asarray(x), s), arrays, shardings)


def random_key(seed: int, sharding: Sharding) -> jax.Array:
    """The run's key, on all devices."""
    return jax.jit(lambda: jax.random.key(seed), out_shardings=sharding)()
