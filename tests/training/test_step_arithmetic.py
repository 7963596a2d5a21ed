"""What a step adds up and passes on, with an objective of one number."""

import jax
import jax.numpy as jnp
import optax
import pytest

from electra_jax.training.state import TrainState
from electra_jax.training.step import make_eval_step, make_train_step

BATCH = {"x": jnp.array([1.0, 2.0, 3.0, 4.0]), "weight": jnp.array([1.0, 0.0, 1.0, 1.0])}
MEAN = 8 / 3


class Line:
    """loss = a * x, weighted twofold; notes whether it was trained."""

    def prepare(self, batch, key):
        return dict(batch)

    def counts(self, prepared):
        return {"line": prepared["weight"].sum()}

    def weights(self, step):
        return {"line": 2.0}

    def losses(self, params, prepared, key, step, train):
        self.dropout = (key is not None, train)
        loss = (params["a"] * prepared["x"] * prepared["weight"]).sum()
        return {"line": loss}, {"loss": loss}


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_gradients_of_microbatches_add_up_to_that_of_the_mean(accumulate):
    """Adam would hide a gradient that is a constant too large; plain descent does not."""
    objective = Line()
    optimizer = optax.with_extra_args_support(optax.sgd(1.0))
    state = TrainState.create({"a": jnp.float32(5.0)}, optimizer, {"loss": jnp.zeros(())})
    step = jax.jit(make_train_step(objective, optimizer, accumulate))
    after = step(state, BATCH, jax.random.key(0), jnp.float32(0.0))
    assert float(after.params["a"]) == pytest.approx(5 - 2 * MEAN)
    assert float(after.metric_sums["loss"]) == pytest.approx(5 * 3 * MEAN)
    assert objective.dropout == (True, True)


def test_an_evaluation_is_without_dropout():
    objective = Line()
    make_eval_step(objective)({"a": jnp.float32(5.0)}, BATCH, jax.random.key(0))
    assert objective.dropout == (False, False)
