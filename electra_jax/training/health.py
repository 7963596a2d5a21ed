"""Warnings that the metrics of a run give while it trains.

What is wrong with metrics is for others to say: a diagnosis, a function of the metrics of one line
of the log. The monitor says when that has lasted for too long, and when it is over. A plateau that
every run goes through is no fault: how long it may last is measured in steps times rate, the sum of
the learning rates of its steps, as a network at half the rate takes twice the steps.
"""

import math
from collections.abc import Callable, Iterable, Mapping

LINES = 3  # of the log, one after another, until a finding begins or ends
RISE = 2.0  # of the loss, over the lowest of all lines
RATES = ("learning_rate", "separate_learning_rate")
RISEN = "loss_risen"

Metrics = Mapping[str, float]


# The metrics of a line → findings by name: what is wrong and what to try, to stand behind "for 500
# steps ", and the sum of learning rates over which a sound run may show it, too.
Diagnose = Callable[[Metrics], Mapping[str, tuple[str, float]]]
Changes = dict[str, str | None]  # warnings that begin, by name; None for one that is over


class _Course:
    """One finding over the lines of the log."""

    def __init__(self) -> None:
        self.shown = self.absent = 0  # lines, one after another
        self.since = (0, 0.0)  # step and sum of rates at the line before the first that shows it
        self.warned = False


class Monitor:
    """Says of each line of a run's log which warnings begin with it, and which end.

    It is a function of the lines: one that was given those of an earlier start goes on as if the
    run had not been interrupted. A finding must be there in several lines, one after another, and
    for its patience; it must be absent from as many until the warning is over.

    Args:
      diagnose: of the run's objective.
      at_start: warnings of a fresh run, by name, of what its config alone tells.
      lines: of the run so far, as `metrics.jsonl` has them.
    """

    def __init__(
        self,
        diagnose: Diagnose,
        at_start: Mapping[str, str] | None = None,
        lines: Iterable[Mapping] = (),
    ) -> None:
        self._diagnose = diagnose
        self._at_start = dict(at_start or {})
        self._courses: dict[str, _Course] = {}
        self._last = (0, 0.0, 0.0)  # step, learning rate and their sum at the last line
        self._lowest = math.inf
        for line in lines:
            self._at_start = {}
            if "train/loss" in line:
                self.observe(line["step"], {
                    name.removeprefix("train/"): math.nan if value is None else value
                    for name, value in line.items()
                    if name.startswith("train/")
                })  # fmt: skip

    def start(self) -> Changes:
        """The warnings of a fresh run, before its first step."""
        return {**self._at_start}

    def observe(self, step: int, metrics: Metrics) -> Changes:
        """The changes that a line of the log brings.

        Args:
          step: steps done.
          metrics: of training, means over the line's steps.
        """
        last_step, last_rate, last_sum = self._last
        rate = min((metrics[name] for name in RATES if name in metrics), default=0.0)
        # The rate changes slowly; between two lines it is taken to change evenly.
        rate_sum = last_sum + (step - last_step) * (last_rate + rate) / 2
        found = {**self._diagnose(metrics), **self._risen(metrics)}
        changes: Changes = {}
        for name in [*found, *(name for name in self._courses if name not in found)]:
            course = self._courses.setdefault(name, _Course())
            if name not in found:
                course.shown, course.absent = 0, course.absent + 1
                if course.warned and course.absent >= LINES:
                    course.warned, changes[name] = False, None
                continue
            text, patience = found[name]
            if not course.shown and not course.warned:
                course.since = (last_step, last_sum)
            course.shown, course.absent = course.shown + 1, 0
            began, sum_before = course.since
            lasting = course.shown >= LINES and rate_sum - sum_before >= patience
            if lasting and not course.warned:
                course.warned = True
                changes[name] = f"for {step - began:,} steps {text}"
        self._last = (step, rate, rate_sum)
        return changes

    def _risen(self, metrics: Metrics) -> dict[str, tuple[str, float]]:
        """The finding that the loss is far above what it was."""
        loss, lowest = metrics["loss"], self._lowest
        self._lowest = min(lowest, loss)  # a loss that is no number is not below it
        if not loss > RISE * lowest > 0:
            return {}
        text = (
            f"the loss has been far above its lowest ({loss:.4g}, and {lowest:.4g} before): the "
            "run diverges; try a lower optimizer.learning_rate or more optimizer.warmup_steps"
        )
        return {RISEN: (text, 0.0)}
