"""The config of the loop: how long a run is, and when it is measured."""

import dataclasses
import math

from electra_jax.errors import UsageError, at_least, check_fields, checked, within
from electra_jax.training.profile import parse_steps
from electra_jax.training.trackers import TENSORBOARD, known_trackers

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of a run, and sizes of its batches."""

    steps: int = checked(1_000_000, at_least(1))  # of the whole run
    time_budget: str = ""  # such as 90s, 10m, 2h: the schedule then follows the clock
    batch_size: int = checked(128, at_least(1))  # rows, over all devices and hosts
    accumulate: int = checked(1, at_least(1))  # microbatches that a batch is cut into
    log_every: int = checked(100, at_least(1))  # steps
    profile: str = ""  # steps to trace, such as 100:110
    # Where metrics go beside metrics.jsonl: some of tensorboard,wandb,mlflow,trackio; or empty.
    trackers: str = checked(TENSORBOARD, known_trackers)
    # Steps in a row that may be skipped as they are not finite; 0: the first ends the run.
    skip_non_finite: int = checked(0, at_least(0))
    # Decay of an average of the parameters, which is evaluated and used; 0: none, else 0.999 or so.
    average: float = checked(0.0, within("[0, 1)"))
    seed: int = checked(0, at_least(0))  # of parameters, order, masks and samples

    def __post_init__(self) -> None:
        check_fields("train", self)
        self.budget_seconds  # noqa: B018 - raises where it cannot be read
        parse_steps(self.profile)

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
            raise UsageError(f"train.time_budget={text!r} is not a duration; write 90s, 10m or 2h")
        return seconds


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluation on held-out data."""

    every_steps: int = checked(1000, at_least(1))  # and at the end
    batch_size: int = checked(128, at_least(1))  # rows
    max_batches: int = checked(100, at_least(0))  # of each evaluation during training; 0: all
    minimal_pairs: str = ""  # JSON lines of sentence pairs, which are scored, too
    # The first of each paradigm, during training; 0: all.
    minimal_pairs_per_paradigm: int = checked(100, at_least(0))

    def __post_init__(self) -> None:
        check_fields("eval", self)
