"""The state that training carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from electra_jax.training.norms import SKIPPED, NormSums, zero_norms, zero_skipped


class TrainState(struct.PyTreeNode):
    """Everything a checkpoint must hold to go on bit for bit, but the elapsed time.

    `metric_sums` and `norm_sums` are added up since the last line of the log. They belong to
    the state so that a run that is stopped between two lines writes the same lines when it goes
    on.
    """

    step: jax.Array  # int32, steps done
    params: Any
    opt_state: Any
    metric_sums: dict[str, jax.Array]
    norm_sums: NormSums = struct.field(default_factory=dict)  # see `norms`
    average: Any = struct.field(default_factory=dict)  # of the parameters; empty: none is kept

    @classmethod
    def create(
        cls,
        params: Any,
        optimizer: optax.GradientTransformation,
        metric_sums: Any,
        skips: bool = False,
        averages: bool = False,
    ) -> "TrainState":
        """A state at step 0, with sums shaped like `metric_sums`.

        Args:
          params: to begin with.
          optimizer: of the run.
          metric_sums: their shapes.
          skips: whether the run skips steps that are not finite.
          averages: whether it keeps an average of its parameters.
        """
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metric_sums)
        step, opt_state = jnp.zeros((), jnp.int32), optimizer.init(params)
        norms = zero_norms(params) | ({SKIPPED: zero_skipped()} if skips else {})
        average = jax.tree.map(jnp.copy, params) if averages else {}
        return cls(step, params, opt_state, zeros, norms, average)

    @property
    def used_params(self) -> Any:
        """The parameters that are evaluated and used: the average, if there is one."""
        return self.average if self.average else self.params

    def reset_metrics(self) -> "TrainState":
        """The same state with sums of zero; steps skipped in a row are counted on."""
        norms = placed_zeros(self.norm_sums)
        if SKIPPED in norms:
            norms[SKIPPED]["in_row"] = self.norm_sums[SKIPPED]["in_row"]
        return self.replace(metric_sums=placed_zeros(self.metric_sums), norm_sums=norms)


def placed_zeros(like: Any) -> Any:
    """Zeros, placed as the arrays of a tree are: elsewhere they would compile the step anew."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), like)
