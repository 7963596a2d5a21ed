"""Optimizers and learning-rate schedules.

The learning rate is a peak times a factor that follows the share of the run that is
done. That share is given to every update (`progress`), so one optimizer serves runs
counted in steps and runs counted by the clock, and holds no step counter of its own.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.errors import (
    UsageError,
    above,
    at_least,
    check_fields,
    checked,
    one_of,
    regular_expression,
    within,
)
from electra_jax.parallel.partition import path_name

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("linear", "cosine", "stable", "constant")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer. Learning rates are peaks.

    `muon` takes the matrices and leaves the rest to AdamW, as optax.contrib has it:
    weight decay on the matrices only, AdamW with Nesterov momentum, bias correction and
    optax's own epsilon.
    """

    # adamw, or muon for the matrices and adamw for the rest
    name: str = checked("adamw", one_of(OPTIMIZERS))
    learning_rate: float = checked(5e-4, at_least(0))  # the peak
    muon_learning_rate: float = checked(0.02, at_least(0))  # of the matrices, with name=muon
    warmup_steps: int = checked(10_000, at_least(0))  # in which the rate rises from 0
    # After warm-up: linear, cosine, stable (then linear) or constant.
    schedule: str = checked("linear", one_of(SCHEDULES))
    # Of the run, at its end; of the stable schedule.
    decay_share: float = checked(0.2, within("(0, 1]"))
    weight_decay: float = checked(0.01, at_least(0))  # decoupled; none on biases and norms
    b1: float = checked(0.9, within("[0, 1)"))  # decay of the mean of gradients
    b2: float = checked(0.999, within("[0, 1)"))  # decay of the mean of their squares
    epsilon: float = checked(1e-6, above(0))  # of AdamW, beside the root of that mean
    bias_correction: bool = False  # of AdamW; the official code has none
    clip: float = checked(1.0, at_least(0))  # of the gradient's global norm; 0: none
    # Regular expression: paths that get an optimizer and a clip of their own.
    separate: str = checked("", regular_expression)
    separate_learning_rate: float = checked(0.0, at_least(0))  # of those, with 0 for the same
    frozen: str = checked("", regular_expression)  # paths that stay as they are

    def __post_init__(self) -> None:
        check_fields("optimizer", self)
        if self.name == "muon" and not self.learning_rate:
            raise UsageError("optimizer.learning_rate must be above 0 with optimizer.name=muon")


def schedule_factor(config: OptimizerConfig, step: Any, progress: Any, xp: Any = jnp) -> Any:
    """The learning rate's share of its peak.

    Args:
      config: the schedule and its warm-up.
      step: steps done before this one, counted from 0; drives the warm-up.
      progress: share of the run that is done, in [0, 1]; drives the decay.
      xp: jax.numpy, or numpy for the host.

    Returns:
      min(1, step / warm-up) times the decay, as the official code has it: the two
      overlap, and the very first update is zero.
    """
    left = 1.0 - xp.clip(progress, 0.0, 1.0)
    decay = {
        "linear": left,
        "cosine": 0.5 * (1.0 - xp.cos(xp.pi * left)),
        "stable": xp.minimum(1.0, left / config.decay_share),
        "constant": xp.ones_like(left),
    }[config.schedule]
    return xp.minimum(1.0, step / max(config.warmup_steps, 1)) * decay


def learning_rates(config: OptimizerConfig, step: int, progress: float) -> dict[str, float]:
    """The rates of one step, each under the name of the field that has its peak.

    On the host: a computation on the devices would wait for the steps they are at.

    Args:
      config: an optimizer.
      step: steps done before this one.
      progress: share of the run that is done.
    """
    names = ["learning_rate"]
    if config.name == "muon":
        names.append("muon_learning_rate")
    if config.separate and config.separate_learning_rate:
        names.append("separate_learning_rate")
    factor = float(schedule_factor(config, step, np.float32(progress), np))
    return {name: getattr(config, name) * factor for name in names}


class AdamState(NamedTuple):
    mu: Any
    nu: Any


def scale_by_adam_without_bias_correction(
    b1: float, b2: float, epsilon: float
) -> optax.GradientTransformation:
    """Adam's direction as the official code has it: m / (sqrt(v) + epsilon), uncorrected."""

    def init(params: Any) -> AdamState:
        return AdamState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(grads: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, AdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_schedule_factor(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates with the schedule's factor, from `step` and `progress` of the update."""

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        step: jax.Array,
        progress: jax.Array,
        **extra: Any,
    ) -> tuple[Any, Any]:
        del params, extra
        factor = schedule_factor(config, step, progress)
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def decayed(params: Any) -> Any:
    """Which parameters weight decay pulls: all but biases and the scales of norms."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_name(path).rsplit("/", 1)[-1] not in ("bias", "scale"), params
    )


def is_matrix(path: tuple, leaf: Any) -> bool:
    """Whether Muon takes a parameter: kernels of dense layers that map many to many.

    Embeddings, biases, norms and the kernels of single-output heads go to AdamW.
    """
    return path_name(path).endswith("kernel") and leaf.ndim >= 2 and min(leaf.shape[-2:]) > 1


def matrix_dimensions(params: Any) -> Any:
    """Muon's reading of each parameter; None goes to AdamW.

    The last two dimensions are the matrix, those before are a stack of layers.
    """
    dimensions = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: dimensions if is_matrix(path, leaf) else None, params
    )


def scale_by_path(scale: Callable[[str], float]) -> optax.GradientTransformation:
    """Multiplies each parameter's update with a number that follows from its path."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        scaled = jax.tree_util.tree_map_with_path(lambda p, x: scale(path_name(p)) * x, updates)
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(
    config: OptimizerConfig, scale: Callable[[str], float] | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a config.

    Its `update` takes `step` and `progress` beside the gradients, state and parameters.

    Args:
      config: its fields.
      scale: by a parameter's path, its share of the learning rate.
    """
    optimizer = _parted_optimizer(config)
    return optax.chain(optimizer, scale_by_path(scale)) if scale else optimizer


def _parted_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    main = _one_optimizer(config, config.learning_rate)
    if not config.separate and not config.frozen:
        return main
    other = _one_optimizer(config, config.separate_learning_rate or config.learning_rate)

    def label(path: Any, _: Any) -> str:
        name = path_name(path)
        if config.frozen and re.search(config.frozen, name):
            return "frozen"
        return "other" if config.separate and re.search(config.separate, name) else "main"

    def labels(params: Any) -> Any:
        found = jax.tree_util.tree_map_with_path(label, params)
        if config.frozen and "frozen" not in jax.tree.leaves(found):
            raise UsageError(f"optimizer.frozen={config.frozen!r} is in no parameter's path")
        return found

    return optax.partition({"main": main, "other": other, "frozen": optax.set_to_zero()}, labels)


def _one_optimizer(
    config: OptimizerConfig, learning_rate: float
) -> optax.GradientTransformationExtraArgs:
    if config.name == "muon":
        direction = optax.contrib.muon(
            config.muon_learning_rate * learning_rate / config.learning_rate,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_learning_rate=learning_rate,
            muon_weight_dimension_numbers=matrix_dimensions,
        )
    else:
        moments = (
            optax.scale_by_adam if config.bias_correction else scale_by_adam_without_bias_correction
        )
        direction = optax.chain(
            moments(config.b1, config.b2, config.epsilon),
            optax.add_decayed_weights(config.weight_decay, decayed),
            optax.scale(-learning_rate),
        )
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, direction, scale_by_schedule_factor(config))
