"""What training carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
    """Everything a checkpoint must hold to go on bit for bit, but the elapsed time.

    `metric_sums` are added up since the last line of the log. They belong to the state so
    that a run that is stopped between two lines writes the same lines when it goes on.
    """

    step: jax.Array  # int32, steps done
    params: Any
    opt_state: Any
    metric_sums: dict[str, jax.Array]

    @classmethod
    def create(
        cls, params: Any, optimizer: optax.GradientTransformation, metric_sums: Any
    ) -> "TrainState":
        """A state at step 0, with sums shaped like `metric_sums`."""
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metric_sums)
        return cls(jnp.zeros((), jnp.int32), params, optimizer.init(params), zeros)

    def reset_metrics(self) -> "TrainState":
        """The same state with metric sums of zero."""
        # Placed as they were: anything else would compile the step anew.
        return self.replace(
            metric_sums=jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), self.metric_sums
            )
        )
