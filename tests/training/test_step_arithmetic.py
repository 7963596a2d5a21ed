"""What a step adds up and passes on, with an objective of one number."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.training.norms import mean_norms
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
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


class Squares:
    """loss = the squares of two networks' parameters, times x; the mean is over x."""

    def prepare(self, batch, key):
        return dict(batch)

    def counts(self, prepared):
        return {"squares": prepared["weight"].sum()}

    def weights(self, step):
        return {"squares": 1.0}

    def losses(self, params, prepared, key, step, train):
        loss = sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
        loss = loss * (prepared["x"] * prepared["weight"]).sum()
        return {"squares": loss}, {"loss": loss}


@pytest.mark.parametrize(
    ("accumulate", "fsdp", "name"),
    [(1, 1, "adamw"), (2, 1, "muon"), (1, 4, "adamw"), (2, 4, "muon")],
)
def test_norms_are_those_of_the_gradient_before_clipping_and_of_what_is_added(
    accumulate, fsdp, name
):
    """Summed over steps; of arrays cut over devices the norm is that of the whole."""
    rng = np.random.default_rng(0)
    params = {
        "one": {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)},
        "two": {"kernel": rng.normal(size=(4, 4))},
    }
    params = jax.tree.map(np.float32, params)
    config = OptimizerConfig(name=name, learning_rate=0.1, warmup_steps=1, clip=0.5)
    optimizer = make_optimizer(config)
    mesh = make_mesh(MeshConfig(data=1, fsdp=fsdp), jax.devices()[:fsdp])
    cut = jax.tree.map(
        lambda x: NamedSharding(mesh, PartitionSpec("fsdp") if x.ndim == 2 else PartitionSpec()),
        params,
    )
    state = TrainState.create(jax.device_put(params, cut), optimizer, {"loss": jnp.zeros(())})
    step = jax.jit(make_train_step(Squares(), optimizer, accumulate))
    expected = []
    for _ in range(3):
        before = jax.device_get(state.params)
        state = step(state, BATCH, jax.random.key(0), jnp.float32(0.5))
        after = jax.device_get(state.params)
        gradient = jax.tree.map(lambda x: 2 * MEAN * x, before)
        update = jax.tree.map(np.subtract, after, before)
        expected.append(
            {
                f"{kind}/{network}": np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(part)))
                for kind, tree in (("gradient_norm", gradient), ("update_norm", update))
                for network, part in tree.items()
            }
        )
    means = {name: np.mean([norms[name] for norms in expected]) for name in expected[0]}
    assert mean_norms(jax.device_get(state.norm_sums)) == pytest.approx(means, rel=1e-3)
    assert mean_norms(state.reset_metrics().norm_sums) == {}


def test_a_frozen_network_has_no_gradient_to_be_computed():
    """Reading its gradient for a norm would bring its backward pass back into the program."""
    params = {"one": jnp.ones((4, 4)), "two": jnp.ones((4, 4))}
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=1, frozen="^two$")
    optimizer = make_optimizer(config)
    state = TrainState.create(params, optimizer, {"loss": jnp.zeros(())})
    arguments = BATCH, jax.random.key(0), jnp.float32(0.5)
    step = jax.jit(make_train_step(Squares(), optimizer, frozen=config.frozen))
    norms = mean_norms(step(step(state, *arguments), *arguments).norm_sums)
    assert norms["gradient_norm/two"] == norms["update_norm/two"] == 0
    assert norms["gradient_norm/one"] > 0 and norms["update_norm/one"] > 0
    reading = jax.jit(make_train_step(Squares(), optimizer))

    def flops(step):
        return step.lower(state, *arguments).compile().cost_analysis()["flops"]

    assert flops(step) < flops(reading)


def test_an_evaluation_is_without_dropout():
    objective = Line()
    make_eval_step(objective)({"a": jnp.float32(5.0)}, BATCH, jax.random.key(0))
    assert objective.dropout == (False, False)
