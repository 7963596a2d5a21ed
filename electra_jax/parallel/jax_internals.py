"""Everything that is used of `jax._src`, JAX's private modules; no other file imports them.

JAX may move or change any of it in a new release. Each function says why no public API serves,
and what to do when its internal is gone; `tests/parallel/test_jax_internals.py` names that one.
"""

from collections.abc import Sequence
from typing import Any

from jax._src import clusters, distributed


def detect_cluster(
    address: str | None, seconds: int
) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """Finds a run's processes on Cloud TPU, GKE, Slurm or Open MPI, without starting JAX.

    Why: `jax.distributed.initialize` detects and connects in one call, and this program compares
    the processes in between. When it moves: look for what `initialize` calls for detection.

    Args:
      address: host:port of process 0, if known.
      seconds: how long to wait for a Cloud TPU's first host.

    Returns:
      Address, number of processes, index of this one, its local devices; None if unknown.

    Raises:
      RuntimeError, OSError, ValueError: of the environment that was detected.
    """
    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        address, None, None, None, None, seconds
    )


def set_shared_value(key: str, value: str) -> None:
    """Sets a value that all processes of the run can read; does nothing in a single process.

    Why: the coordination service's key-value store has no public API, and the watchdog needs
    one that works while the devices hang. When it moves: `multihost_utils` of JAX uses it, too.

    Raises:
      jax.errors.JaxRuntimeError: the coordination service does not answer.
    """
    client = distributed.global_state.client
    if client is not None:
        client.key_value_set(key, value, allow_overwrite=True)


def shared_values(folder: str) -> dict[str, str]:
    """Values by key of all keys that begin with `folder`, which ends in "/" (see above)."""
    client = distributed.global_state.client
    return {} if client is None else dict(client.key_value_dir_get(folder))


def preemption_manager() -> Any:
    """JAX's preemption manager, or what `replace_preemption_manager` has put in its place.

    Why: `multihost_utils.reached_preemption_sync_point` is public but takes only step numbers,
    which restart (see `preemption.Preemption`). When it moves: that function's source uses it.
    """
    return distributed.global_state.preemption_sync_manager


def replace_preemption_manager(manager: Any) -> None:
    """Makes JAX and Orbax ask `manager` instead of JAX's own preemption manager."""
    distributed.global_state.preemption_sync_manager = manager
