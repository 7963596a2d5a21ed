"""The training loop, one for pretraining and fine-tuning.

It knows a state, a step, batches and an evaluation; what they mean is the caller's.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from electra_jax.errors import Stopped, UsageError
from electra_jax.parallel.preemption import StopSignal
from electra_jax.parallel.runtime import broadcast_from_main, is_main, to_global
from electra_jax.parallel.watchdog import Watchdog
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.metrics import MetricsWriter
from electra_jax.training.state import TrainState

PRECISION = 0.005  # of a time budget, with several processes
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, and in what portions."""

    steps: int = 1_000_000
    time_budget: str = ""  # such as 90s, 10m, 2h: the schedule then follows the clock
    batch_size: int = 128  # rows, over all devices and hosts
    accumulate: int = 1  # microbatches that a batch is cut into
    log_every: int = 100
    seed: int = 0

    def __post_init__(self):
        for field in ("steps", "batch_size", "accumulate", "log_every"):
            if getattr(self, field) < 1:
                raise UsageError(f"train.{field} must be at least 1, not {getattr(self, field)}")
        if self.seed < 0:
            raise UsageError(f"train.seed must not be negative, not {self.seed}")
        self.budget_seconds  # noqa: B018 - raises where it cannot be read

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None where steps end the run.

        Raises:
          UsageError: not a number with s, m, h or d behind it.
        """
        text = self.time_budget.strip()
        if not text:
            return None
        try:
            seconds = float(text[:-1]) * UNITS[text[-1]]
        except (KeyError, ValueError):
            seconds = 0.0
        if not 0 < seconds < math.inf:
            raise UsageError(f"train.time_budget={text!r} is no duration; write 90s, 10m or 2h")
        return seconds


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation on held-out data."""

    every_steps: int = 1000
    batch_size: int = 128  # rows
    max_batches: int = 100  # of each evaluation during training; 0: all

    def __post_init__(self):
        for field, least in (("every_steps", 1), ("batch_size", 1), ("max_batches", 0)):
            if getattr(self, field) < least:
                raise UsageError(f"eval.{field} must be at least {least}")


@dataclasses.dataclass
class Clock:
    """Seconds this run has been at work, over all its restarts.

    Of several processes that of process 0 counts; they read it together, by `agree`.
    """

    before: float = 0.0  # seconds of earlier starts
    now: Callable[[], float] = time.monotonic

    def __post_init__(self):
        self._start = self.now()
        self._agreed: float | None = None
        self._read = self._due = 0  # steps: the last reading's, and the next one's

    def elapsed(self) -> float:
        """Of this process."""
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


class NonFiniteLoss(UsageError):
    """The loss, or a parameter, is no longer a number."""


def non_finite(what: str) -> NonFiniteLoss:
    return NonFiniteLoss(
        f"{what}: a lower learning rate, a longer warm-up or a tighter clip may help; the last "
        "good checkpoint is kept"
    )


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of a tree's arrays is a number."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


@dataclasses.dataclass
class Loop:
    """What the loop works with.

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
    """

    steps: int
    log_every: int
    eval_every: int
    save_every: int
    train_step: Callable[..., TrainState]
    batches: Callable[[int], Iterator[Mapping[str, jax.Array]]]
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

    def run(self, state: TrainState, run_key: jax.Array) -> TrainState:
        """Trains until the steps or the time are used up, and closes checkpoints and writer.

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
        budget, steps = self.budget_seconds, self.steps
        step = int(state.step)
        batches = self.batches(step)
        bar = tqdm(
            total=None if budget else steps, initial=step, unit="step", dynamic_ncols=True,
            disable=not is_main(),
        )  # fmt: skip
        if budget:
            self.clock.agree(step, budget)
        self._since = (step, self.clock.elapsed())
        pending = None
        # A run that ended before its time does not go on when it is started again.
        finished = self._finished(step) or (step > 0 and bool(broadcast_from_main(self.enough())))
        stopped = None
        writer = self.writer or contextlib.nullcontext()
        stop, watchdog = StopSignal(), Watchdog(self.stall_seconds)
        with self.checkpoints, writer, stop, watchdog, bar:
            while not finished and not stopped:
                progress = self.clock.agreed() / budget if budget else step / steps
                # All copies to the device are meant: any other is a fault.
                with jax.transfer_guard_host_to_device("disallow"):
                    watchdog.note(step, "reading a batch")
                    batch = next(batches)
                    watchdog.note(step, "stepping")
                    share = to_global(np.array(progress, np.float32), run_key.sharding)
                    state = self.train_step(state, batch, run_key, share)
                step += 1
                bar.update()
                self.checkpoints.check()
                if pending and step > pending[0]:
                    self._log(bar, pending)
                    pending = None
                if budget:
                    self.clock.agree(step, budget)
                finished = self._finished(step)
                evaluate = self.evaluate if step % self.eval_every == 0 or finished else None
                stopped = stop.requested()
                saves = evaluate or finished or step % self.save_every == 0 or stopped
                if step % self.log_every == 0 or finished:
                    # Fetched a step later, so that the device is never waited for.
                    pending = (step, state.metric_sums)
                    state = state.reset_metrics()
                if saves and pending:
                    self._log(bar, pending)
                    pending = None
                metrics = None
                if saves and not all_finite(state.params):
                    raise non_finite(f"a parameter is no number at step {step}")
                if evaluate:
                    watchdog.note(step, "evaluating")
                    metrics = evaluate(state.params)
                    loss = metrics.get("loss", 0.0)  # some tasks have none
                    if not math.isfinite(loss):
                        raise non_finite(f"the held-out loss is {loss} at step {step}")
                    self._write(step, {f"eval/{k}": v for k, v in metrics.items()})
                    finished = finished or bool(broadcast_from_main(self.enough()))
                if saves:
                    watchdog.note(step, "saving")
                    record = {**self.record, "elapsed": self.clock.elapsed()}
                    self.checkpoints.save(step, state, record, metrics)
                    self._since = (step, self.clock.elapsed())
            self.checkpoints.wait()
        if stopped:
            raise Stopped(
                stopped,
                "stopped and saved; the same command goes on from there: "
                f"{self.checkpoints.workdir}",
            )
        return state

    def _finished(self, step: int) -> bool:
        budget = self.budget_seconds
        return self.clock.agreed() >= budget if budget else step >= self.steps

    def _log(self, bar: tqdm, pending: tuple[int, dict[str, jax.Array]]) -> None:
        """Writes a line of training metrics; the sums are those up to its step."""
        step, sums = pending
        values = self.summarise(jax.device_get(sums))
        if not math.isfinite(values["loss"]):
            raise non_finite(f"the loss is {values['loss']} at step {step}")
        last_step, last_seconds = self._since
        now = self.clock.elapsed()
        self._since = (step, now)
        rate = (step - last_step) * self.tokens_per_step / max(now - last_seconds, 1e-9)
        rates = {"tokens_per_second": rate}
        if self.peak_flops:
            rates["mfu"] = rate * self.flops_per_token / self.peak_flops
        self._write(step, {f"train/{k}": v for k, v in {**values, **rates}.items()})
        bar.set_postfix_str(f"loss {values['loss']:.3f}, {rate:,.0f} tokens/s", refresh=False)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            self.writer.write(step, self.clock.elapsed(), values)
