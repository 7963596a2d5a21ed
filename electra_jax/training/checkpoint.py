"""Checkpoints of a run; no other module imports Orbax.

A checkpoint holds the training state and a small record (elapsed seconds, the run's config, a
digest of each array: see `records`). Saves are asynchronous; one that is not whole has no commit
marker and is passed over. Whatever is restored is verified, and one that cannot be read, or is
not what was saved, makes way for the one before it, with a warning.
"""

import contextlib
import dataclasses
import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from electra_jax.errors import UsageError, at_least, check_fields, checked
from electra_jax.system.json_files import short_reason
from electra_jax.training.checkpoint_errors import (
    SaveErrors,
    SaveFailed,
    one_error,
    silence_left_overs,
)
from electra_jax.training.records import make_record, rank, read_record, verify
from electra_jax.training.state import TrainState, placed_zeros

log = logging.getLogger(__name__)

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every save at INFO

FOLDER = "checkpoints"
POLL_SECONDS = 0.1  # for errors in the log, while a save is waited for
PARAMS, REST, NORMS, AVERAGE = "params", "rest", "norms", "average"  # parts of a checkpoint


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep."""

    every_steps: int = checked(1000, at_least(1))  # beside one at each evaluation
    # Latest ones kept, beside the best; the last two in any case, should one be damaged.
    keep: int = checked(1, at_least(1))

    def __post_init__(self) -> None:
        check_fields("checkpoint", self)


class Restored(NamedTuple):
    state: TrainState
    record: dict
    step: int


@dataclasses.dataclass
class Preservation:
    """Which checkpoints of a run are not deleted: the latest and the best, at least two.

    Attributes:
      keep: how many of the latest.
      ranks: how bad each is, by step; one whose record cannot be read is not deleted either.
    """

    keep: int
    ranks: dict[int, float]

    def best(self, steps: Sequence[int]) -> int | None:
        """The best of some steps, the latest of equals; None if none was evaluated."""
        known = [step for step in steps if self.ranks.get(step, math.inf) < math.inf]
        return min(known, key=lambda step: (self.ranks[step], -step), default=None)

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: policies.PreservationContext
    ) -> list[bool]:
        """Answers Orbax, which gives them in the order of their steps."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self.keep :], self.best(steps)} - {None}
        if len(kept) < 2:
            kept |= {*steps[-2:]}
        return [step in kept or step not in self.ranks for step in steps]


class Checkpoints:
    """The checkpoints of one run directory.

    The best is the one of lowest `metric` (highest, with `maximise`) among those saved with
    metrics.

    Raises:
      UsageError: with `read_only`, which leaves the directory as it is, there are none.
    """

    def __init__(
        self,
        workdir: str | Path,
        keep: int = 1,
        metric: str = "loss",
        maximise: bool = False,
        read_only: bool = False,
    ) -> None:
        self._metric, self._maximise, self._read_only = metric, maximise, read_only
        self._errors = SaveErrors()
        self.workdir = workdir
        self._folder = Path(workdir).absolute() / FOLDER
        self._preservation = Preservation(keep, {})
        try:
            str(self._folder).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{workdir}: checkpoints can only lie where all names of folders are in UTF-8"
            ) from error
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        elif not self._folder.is_dir():
            raise UsageError(f"{self._folder} holds no checkpoint yet")
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._preservation,
            best_fn=lambda metrics: 0.0,  # what is the best is said here, and verified
            create=False,
            read_only=self._read_only,
            lightweight_initialize=True,  # a damaged file of metrics would end it
        )
        manager = ocp.CheckpointManager(self._folder, options=options)
        for step in manager.all_steps():
            try:
                metrics = read_record(self._folder / str(step)).metrics
            except UsageError as error:
                log.warning("%s: this checkpoint is not taken for the best", error)
                continue
            self._preservation.ranks[step] = rank(metrics, self._metric, self._maximise)
        return manager

    def save(
        self,
        step: int,
        state: TrainState,
        record: dict,
        metrics: dict[str, float] | None = None,
        unchecked: bool = False,
    ) -> None:
        """Starts a save; one already there at this step is left alone.

        Args:
          step: steps done.
          state: may be donated afterwards.
          record: what is to be kept beside it.
          metrics: those of an evaluation of it.
          unchecked: saves what is not of numbers alone, too.

        Raises:
          SaveFailed: this save, or an earlier one in the background.
          NotFinite: what is learnt is not of numbers alone; nothing is saved.
        """
        self.check()
        ranked = {name: value for name, value in (metrics or {}).items() if name == self._metric}
        with self._reasons():
            self._manager.check_for_errors()
        if step in self._manager.all_steps():
            return
        self._errors.saving = True
        parts = _parts(state)
        sealed = make_record(record, parts, ranked, unchecked)
        self._preservation.ranks[step] = rank(ranked, self._metric, self._maximise)
        self._run(
            lambda: self._manager.save(
                step,
                args=ocp.args.Composite(
                    record=ocp.args.JsonSave(sealed),
                    **{name: ocp.args.StandardSave(part) for name, part in parts.items()},
                ),
                metrics=ranked or None,  # for earlier versions of this program
            )
        )

    def check(self) -> None:
        """Raises SaveFailed if a save in the background has failed; to be called often."""
        if self._errors.error is not None:
            with self._reasons():
                raise self._errors.error

    def _run(self, call: Callable[[], Any]) -> None:
        """Waits for a call of the manager to end, or for a save's error in the log.

        It is made in a daemon thread, whose children are daemons, too: those of a failed save
        wait for each other for minutes, and the end of this process would wait for them.

        Raises:
          SaveFailed: the call, or a save, has failed.
        """
        failed: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="checkpoints", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            self.check()
        with self._reasons():
            if failed:
                raise failed[0]

    @contextlib.contextmanager
    def _reasons(self) -> Iterator[None]:
        """Failures of a save, as one line."""
        try:
            yield
        except Exception as error:  # Orbax, TensorStore and the file system raise many kinds
            raise SaveFailed(
                f"a checkpoint could not be saved in {self._folder}: "
                f"{short_reason(error)}; mend that, and rerun the command to "
                "resume from the last one"
            ) from error

    def record(self) -> dict | None:
        """See `latest_record`."""
        return latest_record(self.workdir)

    def steps(self) -> list[int]:
        """The steps that there are whole checkpoints of."""
        return sorted(self._manager.all_steps())

    def record_at(self, step: int) -> dict:
        """The record of a checkpoint.

        Raises:
          UsageError: it is missing or damaged.
        """
        return read_record(self._folder / str(step)).content

    def restore_latest(self, like: TrainState, unchecked: bool = False) -> Restored | None:
        """The latest checkpoint that can be read, placed as `like` is; None if there is none.

        Those after it that cannot be read, or are not what was saved, are put aside, as the run
        will save those steps again;
        of several processes none can tell whether the others could read one, and none is passed
        over.

        Args:
          like: a state of arrays, or of ShapeDtypeStructs with shardings.
          unchecked: takes what is not of numbers alone, too, if it was saved so.

        Raises:
          UsageError: there are checkpoints, but none can be read (one cannot, where there are
        several processes); all stay where they are.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with one_error():
                    restored = self._restore(step, like, unchecked)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                damaged[step] = short_reason(error)
                if jax.process_count() > 1:  # the others may well have read it
                    raise UsageError(
                        f"checkpoint {step} cannot be read ({damaged[step]}): remove "
                        f"{self._folder / str(step)} to go on from the one before"
                    ) from error
                log.warning("checkpoint %d cannot be read (%s)", step, damaged[step])
                continue
            for later in () if self._read_only else damaged:
                self._put_aside(later)
            return restored
        if damaged:
            raise UsageError(
                f"no checkpoint in {self._folder} can be read: "
                f"{next(iter(damaged.values()))}; choose another --workdir, or remove them to "
                "start anew"
            )
        return None

    def _put_aside(self, step: int) -> None:
        """Not deleted: what could not be read may have been the file system's fault."""
        folder = self._folder
        target = folder.parent / f"unreadable-{FOLDER}" / str(step)
        try:
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier start
            shutil.move(folder / str(step), target)
        except OSError as error:
            raise UsageError(f"{folder / str(step)} cannot be put aside: {error}") from error
        log.warning("it lies in %s now", target)
        self._manager.close()
        self._manager = self._open()

    def _restore(self, step: int, like: TrainState, unchecked: bool) -> Restored:
        """A checkpoint; where an earlier version added up other sums, they are of no steps."""
        folder = self._folder / str(step)
        record = read_record(folder)
        metric_sums = _saved_sums(folder / REST, "metric_sums", like.metric_sums, like.step)
        norm_sums = _saved_sums(folder / NORMS, "", like.norm_sums, like.step)
        saved = _parts(like.replace(metric_sums=metric_sums, norm_sums=norm_sums))
        restored = self._restore_parts(step, saved)
        verify(record, {NORMS: {}, **restored}, unchecked)
        params, rest, norms = restored[PARAMS], restored[REST], restored.get(NORMS, {})
        sums = {"metric_sums": rest["metric_sums"], "norm_sums": norms}
        for name, saved in (("metric_sums", metric_sums), ("norm_sums", norm_sums)):
            if saved is not getattr(like, name):
                sums[name] = placed_zeros(getattr(like, name))
        average = restored.get(AVERAGE, {})
        state = TrainState(**rest | {"params": params, "average": average, **sums})
        return Restored(state, record.content, step)

    def _restore_parts(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(part) for name, part in like.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        return {name: restored[name] for name in like}

    def restore_params(self, step: int, shapes: Any) -> Any:
        """The parameters of a checkpoint alone, on this process's first device.

        Those are their average where the run has kept one.

        Raises:
          UsageError: they cannot be read, are not what was saved, or not of these shapes.
        """
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
        folder = self._folder / str(step)
        try:
            with one_error():
                part = AVERAGE if (folder / AVERAGE).is_dir() else PARAMS
                restored = self._restore_parts(step, {part: like})
                verify(read_record(folder), restored)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            others = [str(other) for other in self._manager.all_steps() if other != step]
            raise UsageError(
                f"{folder} cannot be read: {short_reason(error)}"
                + (f"; choose another with --checkpoint ({', '.join(others)})" if others else "")
            ) from error
        return restored[part]

    def choose(self, which: str) -> int:
        """The step that "last", "best" or a number names.

        Raises:
          UsageError: no such checkpoint; says which there are.
        """
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise UsageError(f"{self._folder} holds no checkpoint yet")
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self._preservation.best(steps)
            return steps[-1] if best is None else best
        if which.isdecimal() and int(which) in steps:
            return int(which)
        raise UsageError(
            f"no checkpoint {which!r} in {self._folder}; there are "
            f"last, best, {', '.join(map(str, steps))}"
        )

    def wait(self) -> None:
        """Waits for a save under way.

        Raises:
          SaveFailed: it failed.
        """
        self._run(self._manager.wait_until_finished)
        self._run(self._manager.check_for_errors)

    def __enter__(self) -> "Checkpoints":
        logging.getLogger("absl").addFilter(self._errors)
        self._restore_hooks = silence_left_overs()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        # Closing waits for saves under way, and for the other processes' part in them, which
        # after an error may never come.
        try:
            if error is None:
                self._run(self._manager.close)
            elif jax.process_count() == 1 and not isinstance(error, SaveFailed):
                with contextlib.suppress(SaveFailed):  # the first error is what is wrong
                    self._run(self._manager.close)
        finally:
            # What a save that failed has left running tells its errors later.
            if self._errors.error is None and error is None:
                logging.getLogger("absl").removeFilter(self._errors)
                self._restore_hooks()


def _saved_sums(folder: Path, name: str, like: Any, beside: Any) -> Any:
    """`like` if a part of a checkpoint holds sums of this structure, else what it does hold.

    That is placed as the array `beside` is.
    """
    if not folder.is_dir():
        return {}
    saved = ocp.StandardCheckpointHandler().metadata(folder).tree
    saved = saved[name] if name else saved
    if jax.tree.map(lambda _: 0, saved) == jax.tree.map(lambda _: 0, like):
        return like
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=beside.sharding), saved
    )


def _parts(state: TrainState) -> dict[str, Any]:
    """A state as its checkpoint has it: parts, so that a model can be used without the rest."""
    rest = {
        "step": state.step,
        "params": None,
        "opt_state": state.opt_state,
        "metric_sums": state.metric_sums,
    }
    norms = {NORMS: state.norm_sums} if state.norm_sums else {}
    average = {AVERAGE: state.average} if state.average else {}
    return {PARAMS: state.params, REST: rest, **norms, **average}


def latest_record(workdir: str | Path) -> dict | None:
    """The record of the latest checkpoint that has a readable one; None without any."""
    folders = [path for path in (Path(workdir) / FOLDER).glob("*") if path.name.isdecimal()]
    for folder in sorted(folders, key=lambda path: int(path.name), reverse=True):
        with contextlib.suppress(UsageError):
            return read_record(folder).content
    return None


def holds_checkpoint(workdir: str | Path) -> bool:
    """Whether there is a checkpoint in a run directory, whole or not."""
    return any(step.name.isdecimal() for step in (Path(workdir) / FOLDER).glob("*"))
