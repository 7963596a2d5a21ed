"""The processes of a run: how they start and stop together, and the arrays they share."""

import contextlib
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding

from electra_jax.errors import Stopped, UsageError
from electra_jax.parallel import rendezvous
from electra_jax.parallel.mesh import batch_sharding, local_rows
from electra_jax.parallel.preemption import take_over
from electra_jax.parallel.watchdog import ending_together, report_failure
from electra_jax.system.ending import ends_itself, resumable, wait_for_others
from electra_jax.system.failures import Failure, explain
from electra_jax.system.locks import one_writer
from electra_jax.system.streams import one_line


@contextlib.contextmanager
def process_group(
    fingerprint: Callable[[], Mapping[str, Any]], processes: rendezvous.ProcessesConfig
) -> Iterator[None]:
    """A command together with its other processes, if there are any (see `rendezvous.join`).

    An error in one ends all: the others would wait for it for ever. SIGTERM, where no run is
    there to save itself, ends a process that is alone with `Stopped`.
    """
    with resumable():
        rendezvous.join(fingerprint, processes)
        if jax.process_count() == 1:
            yield
            return
    take_over()
    wait_for_others()
    try:
        with ending_together():
            yield
    except Stopped:
        raise
    except BaseException as error:
        failure = explain(error)
        if failure is None:
            traceback.print_exc()
            failure = Failure(f"{type(error).__name__}: {error}", 1)
        else:
            print(f"electra-jax: {one_line(failure.line)}", file=sys.stderr)
        status = failure.status
        with contextlib.suppress(Exception), ends_itself():
            report_failure(one_line(failure.line), status)
        sys.stderr.flush()
        os._exit(status)  # JAX's own way out waits for the others


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
            reason = error.strerror
            raise UsageError(f"{folder} cannot be made a run directory: {reason}") from error
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


@contextlib.contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Makes a run directory, which process 0 locks; the others end with it where it cannot.

    Raises:
      UsageError: see `check_shared`; another process writes to it.
    """
    check_shared(folder)
    with locking(folder):
        yield


def locking(folder: str | Path) -> contextlib.AbstractContextManager[None]:
    """Locks a folder that process 0 writes to, and makes it if need be (see `one_writer`)."""
    return one_writer(folder) if is_main() else contextlib.nullcontext()


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
