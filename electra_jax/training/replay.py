"""What a run leaves where a number was not finite, so that the step can be run again.

The loss is looked at some steps after it was computed. So the step is searched for: from the last
checkpoint the steps are run again, which gives the same bits, and each is looked at. A bundle has
the state before the first bad one (as a checkpoint), its batch, and what is known of it.
"""

import io
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.errors import ElectraError, UsageError
from electra_jax.parallel.partition import path_name
from electra_jax.parallel.runtime import barrier, is_main, to_global, to_host
from electra_jax.system.atomic_files import atomic_path, write_json
from electra_jax.system.json_files import read_bytes, read_object, reading, seal, unseal
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.norms import SKIPPED
from electra_jax.training.state import TrainState

log = logging.getLogger(__name__)

FOLDER = "not_finite"  # of a run directory, followed by the step
BUNDLE_FILE, BATCH_FILE = "bundle.json", "batch.npz"
VERSION = 1

Batch = Mapping[str, jax.Array]


class NonFiniteLoss(ElectraError):
    """The loss, or a parameter, is not a number any more."""

    status = 2  # the same command would diverge again
    step = 0  # those done when it was noticed


def non_finite(what: str, step: int) -> NonFiniteLoss:
    error = NonFiniteLoss(
        f"{what}: a lower learning rate, a longer warm-up or a tighter clip may help"
    )
    error.step = step
    return error


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of a tree's arrays is a number."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def check_finite(params: Any, step: int) -> None:
    """Refuses parameters that are not numbers.

    Raises:
      NonFiniteLoss: one of them is not.
    """
    if not all_finite(params):
        raise non_finite(f"a parameter is not a number at step {step}", step)


@jax.jit
def norms(tree: Any) -> dict[str, jax.Array]:
    """The norm of each array, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): optax.tree.norm(leaf) for path, leaf in leaves}


@jax.jit
def finite_arrays(tree: Any) -> dict[str, jax.Array]:
    """Whether each array is of numbers alone, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): jnp.isfinite(leaf).all() for path, leaf in leaves}


def not_finite(tree: Any) -> list[str]:
    """The paths of the arrays that have entries which are not numbers."""
    return [name for name, finite in jax.device_get(finite_arrays(tree)).items() if not finite]


def learnt(state: TrainState) -> dict[str, Any]:
    """What of a state must be numbers."""
    return {"params": state.params, "opt_state": state.opt_state}


class Steps(NamedTuple):
    """The steps of a run, to be run again.

    Attributes:
      start: makes the state of the last good checkpoint, or the first of the run.
      train_step: see `loop.Loop`.
      batches: start step → batches from there on.
      progress: a step's number → the share of the run that was done before it.
      run_key: of the run.
    """

    start: Callable[[], TrainState]
    train_step: Callable[..., TrainState]
    batches: Callable[[int], Iterator[Batch]]
    progress: Callable[[int], float]
    run_key: jax.Array

    def run(self, until: int) -> Iterator[tuple[int, Batch, TrainState]]:
        """Each step up to one: its number, its batch, and the state after it."""
        state = self.start()
        step = int(state.step)
        batches = self.batches(step)
        for number in range(step, until):
            batch = next(batches)
            state = self.train_step(state, batch, self.run_key, self.share(number))
            yield number, batch, state

    def share(self, number: int) -> jax.Array:
        """The progress of a step, on the devices."""
        return to_global(np.array(self.progress(number), np.float32), self.run_key.sharding)

    def before(self, number: int) -> TrainState:
        """The state before a step."""
        state = None
        for _, _, after in self.run(number):
            state = after
        return self.start() if state is None else state

    def first_bad(self, until: int) -> tuple[int, Batch] | None:
        """The first step after which something is not finite, or that was skipped as it was."""
        for number, batch, state in self.run(until):
            skipped = state.norm_sums.get(SKIPPED, {}).get("in_row", 0)
            if skipped or not all_finite((learnt(state), state.metric_sums)):
                return number, batch
        return None


def leave_bundle(
    workdir: str | Path, steps: Steps, until: int, what: str, record: Mapping[str, Any]
) -> Path:
    """Searches for the step and writes its bundle; all processes of a run must call it.

    Args:
      workdir: of the run.
      steps: of the run.
      until: the steps that were done when it was noticed.
      what: was noticed.
      record: what a checkpoint of the run would carry.

    Returns:
      The bundle's folder.
    """
    log.info("the step is searched for: those since the last checkpoint are run again")
    found = steps.first_bad(until)
    folder = Path(workdir) / f"{FOLDER}-{until if found is None else found[0]}"
    content: dict[str, Any] = {
        "version": VERSION, "what": what, "noticed_after_step": until, "step": None,
        "run_key": to_host(jax.random.key_data(steps.run_key)).tolist(), "record": {**record},
    }  # fmt: skip
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
    barrier("the folder of the bundle is made")
    if found is not None:
        number, batch = found
        state = steps.before(number)
        share = steps.share(number)
        content |= {
            "step": number,
            "progress": float(steps.progress(number)),
            "norms": _floats(norms(state.params)),
            "not_finite_before": not_finite(learnt(state)),
        }
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(number, state, {"elapsed": 0.0, **record}, unchecked=True)
            checkpoints.wait()
        after = steps.train_step(state, batch, steps.run_key, share)
        content["not_finite_after"] = not_finite(learnt(after))
        arrays = {name: np.asarray(to_host(part)) for name, part in batch.items()}
        if is_main():
            with atomic_path(folder / BATCH_FILE) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
    if is_main():
        write_json(folder / BUNDLE_FILE, seal(content))
    return folder


def _floats(values: Mapping[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(values).items()}


class Bundle(NamedTuple):
    """A bundle that was read; see `leave_bundle`. Without a step its batch is empty."""

    content: dict[str, Any]
    batch: dict[str, np.ndarray]

    @property
    def step(self) -> int | None:
        return self.content["step"]


def read_bundle(folder: str | Path, known: Sequence[str] = ()) -> Bundle:
    """Reads a bundle.

    Raises:
      UsageError: it is not one, damaged or of a newer version.
    """
    file = Path(folder) / BUNDLE_FILE
    content = read_object(file)
    with reading(file):
        content = unseal(content, known)
        if content["version"] > VERSION:
            raise UsageError(f"it has version {content['version']}: upgrade electra-jax")
        if content["step"] is None:
            return Bundle(content, {})
    file = Path(folder) / BATCH_FILE
    raw = read_bytes(file)
    with reading(file):
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                return Bundle(content, {name: arrays[name] for name in arrays.files})
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UsageError(f"it is damaged: {error}") from error
