"""One training step and one evaluation step, for any objective that supports them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.training.norms import add_norms, count_skipped, step_norms
from electra_jax.training.state import TrainState

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]


class SupportsStep(Protocol):
    """The methods that a step calls: `objectives.objective.Objective` and `TaskObjective` have it.

    A prepared batch may hold trees of arrays; the first dimension of all leaves is that of the
    batch.
    """

    def prepare(self, batch: Batch, key: jax.Array) -> dict[str, Any]: ...

    def counts(self, prepared: Mapping[str, Any]) -> Sums: ...

    def losses(
        self,
        params: Any,
        prepared: Mapping[str, Any],
        key: jax.Array | None,
        step: jax.Array,
        train: bool,
    ) -> tuple[Sums, Sums]: ...

    def weights(self, step: jax.Array) -> dict[str, Any]: ...

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]: ...


@runtime_checkable
class SupportsSchedules(Protocol):
    """An objective whose batches are prepared otherwise as the run goes on."""

    def prepare_at(self, batch: Batch, key: jax.Array, progress: jax.Array) -> dict[str, Any]: ...


def prepare(
    objective: SupportsStep, batch: Batch, key: jax.Array, progress: jax.Array
) -> dict[str, Any]:
    """A batch prepared for a training step, before which `progress` of the run was done."""
    if isinstance(objective, SupportsSchedules):
        return objective.prepare_at(batch, key, progress)
    return objective.prepare(batch, key)


def step_keys(run_key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A step's keys: for what is random about the batch, and for dropout."""
    prepare_key, dropout_key = jax.random.split(jax.random.fold_in(run_key, step))
    return prepare_key, dropout_key


def make_train_step(
    objective: SupportsStep,
    optimizer: optax.GradientTransformationExtraArgs,
    accumulate: int = 1,
    frozen: str = "",
    skip_non_finite: bool = False,
    average: float = 0.0,
) -> Callable[[TrainState, Batch, jax.Array, jax.Array], TrainState]:
    """The training step, a pure function to be jitted with its state donated.

    Args:
      objective: what is learnt.
      optimizer: takes `step` and `progress` in its update.
      accumulate: microbatches that the global batch is cut into, one after another.
      frozen: regular expression: paths that the optimizer leaves as they are.
      skip_non_finite: whether a step whose loss, gradients or updates are not finite leaves the
        state as it is, but for the number of the step and the counts of those skipped.
      average: the decay of the average of the parameters; 0: the state has none.

    Returns:
      (state, batch, run key, progress in [0, 1]) → next state.
    """
    gradients = make_gradients(objective, accumulate)

    def train_step(
        state: TrainState, batch: Batch, run_key: jax.Array, progress: jax.Array
    ) -> TrainState:
        grads, metrics = gradients(state.params, state.step, batch, run_key, progress)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, step=state.step, progress=progress
        )
        norms = step_norms(grads, updates, frozen)
        params = optax.apply_updates(state.params, updates)
        after = state.replace(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            metric_sums=jax.tree.map(jnp.add, state.metric_sums, metrics),
            norm_sums=add_norms(state.norm_sums, norms),
            average=averaged(state, params, average) if average else state.average,
        )
        return skip_if_not_finite(state, after, (metrics, norms)) if skip_non_finite else after

    return train_step


def averaged(state: TrainState, params: Any, decay: float) -> Any:
    """The exponential average of the parameters after a step, in float32.

    Its decay rises to `decay` as (1 + n) / (10 + n) in step n, so that the first parameters, which
    are random, weigh little in short runs, too.
    """
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(lambda old, new: keep * old + (1.0 - keep) * new, state.average, params)


def skip_if_not_finite(before: TrainState, after: TrainState, told: Any) -> TrainState:
    """The state after a step, or the one before it, counted, if `told` has what is not finite."""
    finite = jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(told)]).all()
    chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    sums = count_skipped(chosen.norm_sums, before.norm_sums, ~finite)
    return chosen.replace(step=after.step, norm_sums=sums)


def make_gradients(
    objective: SupportsStep, accumulate: int = 1
) -> Callable[[Any, jax.Array, Batch, jax.Array, jax.Array], tuple[Any, Sums]]:
    """The gradients of a step: (parameters, step, batch, run key, progress) → them, metric sums.

    Every microbatch's gradient is that of sum(weight * loss sum / global count), so
    gradients add up, in float32, to that of the whole batch: no mean of means.
    """

    def gradients(
        params: Any, step: jax.Array, batch: Batch, run_key: jax.Array, progress: jax.Array
    ) -> tuple[Any, Sums]:
        prepare_key, dropout_key = step_keys(run_key, step)
        prepared = prepare(objective, batch, prepare_key, progress)
        weights = objective.weights(step)
        scales = {
            name: weights[name] / jnp.maximum(count, 1.0)
            for name, count in objective.counts(prepared).items()
        }

        def total(params: Any, microbatch: Batch, key: jax.Array) -> tuple[Any, Sums]:
            losses, metrics = objective.losses(params, microbatch, key, step, True)
            return sum(scales[name] * loss for name, loss in losses.items()), metrics

        gradient = jax.grad(total, has_aux=True)
        if accumulate == 1:
            return gradient(params, prepared, dropout_key)
        return add_up(gradient, params, prepared, dropout_key, accumulate)

    return gradients


def add_up(
    gradient: Callable[[Any, Mapping[str, Any], jax.Array], tuple[Any, Sums]],
    params: Any,
    prepared: Mapping[str, Any],
    key: jax.Array,
    accumulate: int,
) -> tuple[Any, Sums]:
    """The gradient and the metrics of a batch, summed over microbatches one after another."""
    # Row i of each microbatch is row i * accumulate + m of the batch, so that every device
    # keeps the rows it has.
    microbatches = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]), 1, 0),
        prepared,
    )
    keys = jax.random.split(key, accumulate)

    def add(carry: Any, inputs: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, carry, gradient(params, *inputs)), None

    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], microbatches), keys[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (grads, metrics), _ = jax.lax.scan(add, zeros, (microbatches, keys))
    return grads, metrics


def make_eval_step(objective: SupportsStep) -> Callable[[Any, Batch, jax.Array], Sums]:
    """(parameters, batch, key) → metric sums, without dropout. The key fixes the masks."""

    def eval_step(params: Any, batch: Batch, key: jax.Array) -> Sums:
        prepared = objective.prepare(batch, key)
        _, metrics = objective.losses(params, prepared, None, jnp.zeros((), jnp.int32), False)
        return metrics

    return eval_step
