"""The training step: accumulation, the mesh, the number formats, one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig, stack_layers
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.objectives.replaced_token import ReplacedTokenDetection
from electra_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh
from electra_jax.parallel.partition import place
from electra_jax.placement import PARTITION
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import TrainState
from electra_jax.training.step import make_eval_step, make_train_step

pytestmark = pytest.mark.slow

MODEL = ModelConfig(
    vocab_size=64, layers=3, hidden=16, heads=2, intermediate=32, embedding=16,
    max_positions=32, dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
MODERN = dataclasses.replace(MODEL, architecture="modern")
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=1, schedule="constant")


def batch(rows=16, length=32, seed=0):
    rng = np.random.default_rng(seed)
    # Rows of very different lengths: a mean of means would show.
    real = rng.integers(4, length + 1, (rows, 1))
    documents = (np.arange(length) < real).astype(np.int32)
    tokens = rng.integers(5, 64, (rows, length)) * documents
    return {
        "tokens": tokens.astype(np.int32), "documents": documents, "types": 0 * documents
    }  # fmt: skip


def setup(model=MODEL, optimizer=OPTIMIZER):
    generator = GeneratorConfig(width=1.0, depth=0.34)
    objective = ReplacedTokenDetection(
        ObjectiveConfig(), Electra(model, generator), SpecialTokens(0, 2, 3, 4)
    )
    tx = make_optimizer(optimizer)

    def create(key):
        params = init_params(objective.electra, key)
        sums = jax.eval_shape(make_eval_step(objective), params, batch(), key)
        return TrainState.create(params, tx, sums)

    return objective, tx, create


@functools.cache
def trained(model=MODEL, accumulate=1, steps=2, optimizer=OPTIMIZER):
    """(parameters, metric sums) after a few steps, on the host."""
    objective, tx, create = setup(model, optimizer)
    step = make_train_step(objective, tx, accumulate)
    key = jax.random.key(7)
    state, step = jax.jit(create)(key), jax.jit(step)
    for number in range(steps):
        state = step(state, batch(seed=number), key, jnp.float32(0.1))
    return jax.device_get((state.params, state.metric_sums))


def difference(a, b):
    """The largest difference of two trees of parameters."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


COUNTS = ("generator_count", "sampled", "generator_guessed", "generator_targets")


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulation_is_the_whole_batch_in_parts(accumulate):
    whole, parts = trained(), trained(accumulate=accumulate)
    assert difference(whole[0], parts[0]) < 2e-5
    for name in COUNTS:
        np.testing.assert_array_equal(whole[1][name], parts[1][name])


@pytest.mark.parametrize("model", [MODEL, MODERN], ids=["published", "modern"])
def test_rematerialisation_and_scan_give_the_same_losses(model):
    plain = trained(model)
    for changed in ({"remat": True}, {"scan": True}, {"remat": True, "scan": True}):
        other = trained(dataclasses.replace(model, **changed))
        for name in ("generator_loss", "discriminator_loss"):
            np.testing.assert_allclose(other[1][name], plain[1][name], rtol=1e-6)


def test_a_step_is_compiled_once():
    objective, tx, create = setup()
    key = jax.random.key(0)
    mesh = make_mesh(MeshConfig())
    shardings, _ = place(jax.eval_shape(create, key), PARTITION, mesh)
    state = jax.jit(create, out_shardings=shardings)(key)
    step = jax.jit(make_train_step(objective, tx), donate_argnums=0, out_shardings=shardings)
    for number in range(3):
        rows = jax.device_put(batch(seed=number), batch_sharding(mesh))
        state = step(state, rows, key, jnp.float32(0.0)).reset_metrics()
    assert step._cache_size() == 1


def test_every_parameter_learns():
    """A parameter that the gradient does not reach would be one that only takes space."""
    for model in (MODEL, MODERN):
        objective, _, create = setup(model)
        params = jax.jit(create)(jax.random.key(0)).params
        prepared = objective.prepare(batch(), jax.random.key(1))

        def total(p, o=objective, b=prepared):
            losses, _ = o.losses(p, b, jax.random.key(2), 0, True)
            return losses["generator"] + losses["discriminator"]

        flat = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params))
        still = [jax.tree_util.keystr(p) for p, g in flat if not float(jnp.abs(g).max())]
        # All types are 0 here; a key's bias shifts all scores of a query alike.
        assert not [name for name in still if "type" not in name and "key" not in name]


def test_stacked_parameters_are_those_of_the_layers():
    params = trained()[0]["discriminator"]["encoder"]
    stacked = trained(dataclasses.replace(MODEL, scan=True))[0]["discriminator"]["encoder"]
    assert difference(stack_layers(params, MODEL), stacked) < 2e-5


def test_bfloat16_stays_near_float32():
    losses = {
        dtype: trained(dataclasses.replace(MODEL, dtype=dtype))[1]["generator_loss"]
        for dtype in ("float32", "bfloat16")
    }
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-3)
    assert losses["bfloat16"] != losses["float32"]
