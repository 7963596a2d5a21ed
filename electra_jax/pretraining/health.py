"""What a pretraining run is warned of: where it starts, and while it trains."""

from pathlib import Path

import numpy as np

from electra_jax.config import PretrainConfig
from electra_jax.objectives.objective import Objective
from electra_jax.training.health import Monitor
from electra_jax.training.metrics import read_metrics
from electra_jax.training.optimizer import OptimizerConfig, schedule_factor
from electra_jax.training.program import Program

STEEP = "steep_warmup"
EARLY_STEPS = 100  # in which Adam's moments are hardly known yet
# Layers times the learning rates of the early steps. Measured on the published block: 12 layers
# died at 0.6 (a rate of 1e-3 after 100 steps) and lived at 0.06 (after 1,000), 2 layers lived at
# 0.05 (after 200).
STEEPEST = 0.2


def run_monitor(
    config: PretrainConfig, program: Program, workdir: str | Path, step: int
) -> Monitor:
    """The monitor of a run that starts or resumes at a step."""
    lines = [line for line in read_metrics(workdir) if line["step"] <= step]
    assert isinstance(program.objective, Objective)
    return Monitor(program.objective.diagnose, {} if step else warnings_at_start(config), lines)


def warnings_at_start(config: PretrainConfig) -> dict[str, str]:
    """Warnings of what a config alone tells, by name."""
    rise = early_rate(config.optimizer) * config.model.layers
    # Of other blocks, other optimizers and trained parameters none is known that died.
    if (
        config.model.architecture != "published"
        or config.optimizer.name != "adamw"
        or config.init.from_
        or rise <= STEEPEST
    ):
        return {}
    rate, steps = peak_rate(config.optimizer), config.optimizer.warmup_steps
    return {
        STEEP: f"the learning rate rises to {rate:g} within {steps:,} steps, which may kill the "
        f"attention of {config.model.layers} layers for good: try optimizer.warmup_steps="
        f"{enough_warmup(config)} or more, or a lower optimizer.learning_rate"
    }


def peak_rate(config: OptimizerConfig) -> float:
    """The highest of the peak rates."""
    return max(config.learning_rate, config.separate_learning_rate if config.separate else 0.0)


def early_rate(config: OptimizerConfig) -> float:
    """The sum of the learning rates of the early steps."""
    steps = np.arange(EARLY_STEPS)
    factors = schedule_factor(config, steps, np.zeros(EARLY_STEPS), np)
    return peak_rate(config) * float(np.sum(factors))


def enough_warmup(config: PretrainConfig) -> int:
    """Steps of warm-up from which on a run is not warned, rounded up to hundreds."""
    per_step = peak_rate(config.optimizer) * config.model.layers * EARLY_STEPS**2 / 2
    return 100 * int(np.ceil(per_step / STEEPEST / 100))
