"""The training loop, one for pretraining and fine-tuning.

It knows a state, a step, batches and an evaluation; what they mean is the caller's.
"""

import contextlib
import dataclasses
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from electra_jax.errors import (
    ElectraError,
    Stopped,
)
from electra_jax.parallel.preemption import StopSignal
from electra_jax.parallel.runtime import broadcast_from_main, is_main, to_global
from electra_jax.parallel.watchdog import Watchdog
from electra_jax.system.json_files import short_reason
from electra_jax.system.progress import Progress, stage
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.health import Changes, Monitor
from electra_jax.training.metrics import BASELINE, MetricsWriter
from electra_jax.training.norms import SKIPPED, NormSums, mean_norms
from electra_jax.training.profile import Profiler
from electra_jax.training.records import NotFinite
from electra_jax.training.replay import NonFiniteLoss, Steps, check_finite, leave_bundle, non_finite
from electra_jax.training.state import TrainState

log = logging.getLogger(__name__)

Batch = Mapping[str, jax.Array]
Listener = Callable[[int, Mapping[str, float]], None]  # (step, metrics) of a line of the log

PRECISION = 0.005  # of a time budget, with several processes


@dataclasses.dataclass
class Clock:
    """Seconds this run has been at work, over all its restarts.

    Of several processes that of process 0 counts; they read it together, by `agree`.
    """

    before: float = 0.0  # seconds of earlier starts
    now: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._start = self.now()
        self._agreed: float | None = None
        self._read = self._due = 0  # steps: the last reading's, and the next one's

    def elapsed(self) -> float:
        """Seconds by the clock of this process."""
        return self.before + self.now() - self._start

    def agree(self, step: int, budget: float) -> None:
        """Reads the clock of process 0; all processes must call it at the same steps.

        It waits for the devices, and so reads but every PRECISION of the budget.
        """
        if jax.process_count() == 1 or step < self._due:
            return
        before, self._agreed = self._agreed, broadcast_from_main(self.elapsed())
        steps, self._read = step - self._read, step
        ahead = 1
        if before is not None:
            pace = (self._agreed - before) / steps
            # A pace read over few steps says little of many.
            ahead = min(2 * steps, int(PRECISION * budget / max(pace, 1e-6)))
        self._due = step + max(1, ahead)

    def agreed(self) -> float:
        """The same in every process: as old as the last `agree` where there are several."""
        return self.elapsed() if self._agreed is None else self._agreed


class Line(NamedTuple):
    """A line of the log before its sums are fetched from the devices.

    Attributes:
      step: steps done.
      progress: the share of the run that was done before the last of them.
      metric_sums, norm_sums: those of the training state at that step.
    """

    step: int
    progress: float
    metric_sums: dict[str, jax.Array]
    norm_sums: NormSums


@dataclasses.dataclass
class Loop:
    """The training loop, and what it works with.

    Attributes:
      steps: after which the run ends.
      budget_seconds: after which it ends instead, if given; the schedule follows the clock.
      log_every, eval_every, save_every: in steps; each evaluation is saved, too.
      train_step: (state, batch, run key, progress) → state; donates its state.
      batches: start step → batches from there on, in order.
      evaluate: parameters → held-out metrics, or None for no evaluation.
      summarise: metric sums → metrics by name.
      tokens_per_step, flops_per_token: for the rates in the log.
      peak_flops: of all devices together, per second; None where unknown.
      checkpoints: where to save.
      writer: where to log; None in all processes but one.
      record: what each checkpoint carries beside the state.
      enough: asked after each evaluation whether the run may end before its time.
      stall_seconds: without a step, after which the watchdog says who stalls.
      learning_rates: (steps done, progress) → the rates of the next step, by name.
      profiler: what it traces is between two steps.
      monitor: of what goes wrong, if it is watched.
      checks: called after each step; what it raises ends the run before that step is saved.
      first_state: makes the first state of the run again. Without it, nothing is left to look at
        where a number is not finite (see `replay`).
      may_skip: how many steps in a row may be skipped by the step.
      listener: called with each line of the log, in the process that writes it.
      headline: the held-out metrics that the terminal shows, of those that there are.
    """

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    train_step: Callable[..., TrainState]
    batches: Callable[[int], Iterator[Batch]]
    evaluate: Callable[[Any], dict[str, float]] | None
    summarise: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    tokens_per_step: float
    flops_per_token: float
    peak_flops: float | None
    checkpoints: Checkpoints
    writer: MetricsWriter | None
    record: dict
    clock: Clock = dataclasses.field(default_factory=Clock)
    budget_seconds: float | None = None
    enough: Callable[[], bool] = lambda: False
    stall_seconds: float = 900.0
    learning_rates: Callable[[int, float], dict[str, float]] = lambda step, progress: {}
    profiler: Profiler = dataclasses.field(default_factory=Profiler)
    monitor: Monitor | None = None
    checks: Callable[[], None] = lambda: None
    first_state: Callable[[], TrainState] | None = None
    may_skip: int = 0
    listener: Listener | None = None
    headline: Sequence[str] = ()

    def run(self, state: TrainState, run_key: jax.Array) -> TrainState:
        """Trains until the steps or the time are used up, and closes checkpoints and writer.

        Each round is batch, step, log, evaluate, save, stop. A save follows the lines up to its
        step, because a run that resumes from it does not write them again, and the evaluation,
        because its metrics decide which checkpoint is kept. A stop is last: all is saved then.

        Args:
          state: where to begin.
          run_key: whole on every device, as the clock's share will be.

        Returns:
          The last state, saved.

        Raises:
          Stopped: a signal asked to stop; the state is saved.
          NonFiniteLoss: nothing is saved past the last good checkpoint.
          SaveFailed: a checkpoint could not be written.
        """
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        try:
            return self._run(state, run_key)
        except NonFiniteLoss as error:
            traceback.clear_frames(error.__traceback__)  # they hold the state
            raise NonFiniteLoss(f"{error}{self._remains(error, like, run_key)}") from None

    def _run(self, state: TrainState, run_key: jax.Array) -> TrainState:
        step, stopped = int(state.step), None
        batches = self.batches(step)
        self._begin(step)
        # A run that ended before its time does not go on when it is started again.
        finished = self._is_finished(step) or (step > 0 and self._is_enough())
        writer, stop = self.writer or contextlib.nullcontext(), StopSignal()
        with self.checkpoints, writer, stop, self._watchdog, self._bar, self.profiler:
            while not finished and not stopped:
                progress = self._progress(step)
                # All copies to the device are meant: any other is a fault.
                with self.profiler.step(step), jax.transfer_guard_host_to_device("disallow"):
                    batch = self._read(batches, step)
                    state = self._step(state, batch, step, progress, run_key)
                step += 1
                stop.begun()
                self._end_step(state, step)
                finished, stopped = self._is_finished(step), stop.requested()
                evaluates = bool(self.evaluate) and (step % self.eval_every == 0 or finished)
                saves = evaluates or finished or step % self.save_every == 0 or bool(stopped)
                state = self._log(state, step, progress, last=finished, at_once=saves)
                if saves:
                    check_finite(state.params, step)
                    metrics = self._evaluate(state.used_params, step) if evaluates else None
                    self._save(state, step, metrics)
                finished = finished or (evaluates and self._is_enough())
            self.checkpoints.wait()
            stopped = stopped or stop.heard_alone()  # in the last evaluation or save
        if stopped:
            raise Stopped(
                stopped,
                f"stopped and saved; rerun the command to resume: {self.checkpoints.workdir}",
            )
        return state

    def _begin(self, step: int) -> None:
        budget = self.budget_seconds
        self._watchdog = Watchdog(self.stall_seconds)
        done = self.clock.elapsed() if budget else step
        self._bar = Progress(
            budget or self.steps, initial=done, by_clock=bool(budget), shown=is_main()
        )
        if budget:
            self.clock.agree(step, budget)
        self._since = (step, self.clock.elapsed())
        self._pending: Line | None = None
        self._first, self._shares = step, list[float]()  # of the steps of this start
        if self.monitor and step == 0:
            self._write(step, {}, self.monitor.start())

    def _progress(self, step: int) -> float:
        """The share of the run that is done, which drives the schedule."""
        budget = self.budget_seconds
        return self.clock.agreed() / budget if budget else step / self.steps

    def _is_finished(self, step: int) -> bool:
        budget = self.budget_seconds
        return self.clock.agreed() >= budget if budget else step >= self.steps

    def _is_enough(self) -> bool:
        return bool(broadcast_from_main(self.enough()))

    def _read(self, batches: Iterator[Batch], step: int) -> Batch:
        self._watchdog.note(step, "reading a batch")
        return next(batches)

    def _step(
        self, state: TrainState, batch: Batch, step: int, progress: float, run_key: jax.Array
    ) -> TrainState:
        self._watchdog.note(step, "stepping")
        if self.budget_seconds:
            self._shares.append(progress)
        share = to_global(np.array(progress, np.float32), run_key.sharding)
        if step > self._first:
            return self.train_step(state, batch, run_key, share)
        with stage("compiling the training step"):
            return self.train_step(state, batch, run_key, share)

    def _end_step(self, state: TrainState, step: int) -> None:
        self.profiler.end(step, state)
        self._bar.move(self.clock.elapsed() if self.budget_seconds else step)
        self.checkpoints.check()
        self.checks()
        if self.budget_seconds:
            self.clock.agree(step, self.budget_seconds)

    def _log(
        self, state: TrainState, step: int, progress: float, last: bool, at_once: bool
    ) -> TrainState:
        """Writes the line that is due, and begins the sums of the next one.

        A line is fetched a step later, so that the device is never waited for, or at once.
        """
        self._write_pending()
        if step % self.log_every == 0 or last:
            self._pending = Line(step, progress, state.metric_sums, state.norm_sums)
            state = state.reset_metrics()
        if at_once:
            self._write_pending()
        return state

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        step, progress, *sums = self._pending
        self._pending = None
        metric_sums, norm_sums = jax.device_get(sums)
        skipped = self._skipped(step, norm_sums)
        if skipped and not norm_sums["steps"]:
            self._write(step, skipped)
            return  # there is nothing else to tell of this line
        values = self.summarise(metric_sums)
        if not math.isfinite(values["loss"]):
            error = non_finite(f"the loss is {values['loss']} at step {step}", step)
            self._write(step, {"train/loss": values["loss"]}, {"not_a_number": str(error)})
            raise error
        last_step, last_seconds = self._since
        now = self.clock.elapsed()
        self._since = (step, now)
        rate = (step - last_step) * self.tokens_per_step / max(now - last_seconds, 1e-9)
        rates = {"tokens_per_second": rate}
        if self.peak_flops:
            rates["mfu"] = rate * self.flops_per_token / self.peak_flops
        # The update of the line's step had this progress, and one step less done.
        learning = self.learning_rates(step - 1, progress)
        values = {**values, **learning, **mean_norms(norm_sums), **rates}
        changes = self.monitor.observe(step, values) if self.monitor else {}
        line = {f"train/{name}": value for name, value in values.items()}
        self._write(step, {**line, **skipped}, changes)
        steps = f"step {step:,}, " if self.budget_seconds else ""
        self._bar.tell(f"{steps}loss {values['loss']:.3f}, {rate:,.0f} tokens/s")

    def _skipped(self, step: int, norm_sums: NormSums) -> dict[str, float]:
        """How many steps of a line were skipped; empty for a run that skips none.

        Raises:
          NonFiniteLoss: too many in a row.
        """
        if SKIPPED not in norm_sums:
            return {}
        counts = {name: int(count) for name, count in norm_sums[SKIPPED].items()}
        skipped = {"train/skipped_steps": float(counts["steps"])}
        if counts["longest"] > self.may_skip:
            error = non_finite(
                f"{counts['longest']} steps in a row were not finite up to step {step}, and "
                f"train.skip_non_finite={self.may_skip}", step,
            )  # fmt: skip
            self._write(step, skipped, {"not_a_number": str(error)})
            raise error
        return skipped

    def _remains(self, error: NonFiniteLoss, like: TrainState, run_key: jax.Array) -> str:
        """What is there after a number that was not finite, in words; writes a bundle."""
        workdir = self.checkpoints.workdir
        kept = "; the last good checkpoint is kept" if self.checkpoints.steps() else ""
        if self.first_state is None:
            return kept
        first_state, shares = self.first_state, self._shares

        def start() -> TrainState:
            with Checkpoints(workdir, read_only=True) as checkpoints:
                restored = checkpoints.restore_latest(like)
            return first_state() if restored is None else restored.state

        def progress(step: int) -> float:
            if not self.budget_seconds:
                return step / self.steps
            return shares[max(step - self._first, 0)]

        record = {**self.record, "steps": self.steps}
        steps = Steps(start, self.train_step, self.batches, progress, run_key)
        try:
            folder = leave_bundle(workdir, steps, error.step, str(error), record)
        except (ElectraError, OSError, LookupError) as failed:
            log.warning("nothing could be left to run the step again: %s", short_reason(failed))
            return kept
        return f"{kept}; `electra-jax replay {folder}` shows where it begins"

    def _evaluate(self, params: Any, step: int) -> dict[str, float]:
        """Held-out metrics, written to the log."""
        assert self.evaluate is not None
        self._watchdog.note(step, "evaluating")
        metrics = self.evaluate(params)
        loss = metrics.get("loss", 0.0)  # some tasks have none
        if not math.isfinite(loss):
            raise non_finite(f"the held-out loss is {loss} at step {step}", step)
        self._write(step, {f"eval/{name}": value for name, value in metrics.items()})
        if is_main():
            with self._bar.aside():
                log.info("step %s: held out: %s", f"{step:,}", self._headline(metrics))
        return metrics

    def _headline(self, metrics: Mapping[str, float]) -> str:
        """The metrics to watch, beside their baselines."""
        names = [name for name in self.headline if name in metrics] or [*metrics][:3]
        parts = [f"{name} {metrics[name]:.3f}" for name in names]
        baselines = [metrics.get(f"{name}{BASELINE}") for name in names]
        return ", ".join(
            part if baseline is None else f"{part} (baseline {baseline:.3f})"
            for part, baseline in zip(parts, baselines, strict=True)
        )

    def _save(self, state: TrainState, step: int, metrics: dict[str, float] | None) -> None:
        self._watchdog.note(step, "saving")
        record = {**self.record, "elapsed": self.clock.elapsed()}
        try:
            self.checkpoints.save(step, state, record, metrics)
        except NotFinite as error:
            raise non_finite(f"{error} is not a number at step {step}", step) from None
        self._since = (step, self.clock.elapsed())

    def _write(
        self, step: int, values: Mapping[str, float], warnings: Changes | None = None
    ) -> None:
        """Writes a line of the log, and its warnings to the terminal, too."""
        if self.writer is None or not (values or warnings):
            return
        self.writer.write(step, self.clock.elapsed(), values, warnings)
        if self.listener and values:
            self.listener(step, values)
        with self._bar.aside():
            for name, text in (warnings or {}).items():
                if text is None:
                    log.info("step %s: over: %s", f"{step:,}", name)
                else:
                    log.warning("step %s: warning: %s", f"{step:,}", text)
