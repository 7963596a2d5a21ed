"""The training step: accumulation, the mesh, the number formats, one compilation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from electra_jax.models.electra import (
    Electra,
    GeneratorConfig,
    init_params,
    stack_params,
    unstack_params,
)
from electra_jax.models.encoder import ModelConfig
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
    vocab_size=64, layers=2, hidden=16, heads=2, intermediate=32, embedding=16,
    max_positions=32, dropout=0.0, attention_dropout=0.0, dtype="float32",
)  # fmt: skip
# Its first layer stands outside the scan.
MODERN = dataclasses.replace(MODEL, architecture="modern", layers=3)
MODELS = {model.architecture: model for model in (MODEL, MODERN)}
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


def make_objective(model):
    generator = GeneratorConfig(width=1.0, depth=0.34)
    return ReplacedTokenDetection(
        ObjectiveConfig(), Electra(model, generator), SpecialTokens(0, 2, 3, 4)
    )


@functools.cache
def start(architecture):
    """Fresh parameters of the plain model, on the host."""
    electra = make_objective(MODELS[architecture]).electra
    return jax.device_get(jax.jit(functools.partial(init_params, electra))(jax.random.key(7)))


# In the place of an optimizer: leaves the parameters, and keeps the gradient as its state.
KEEP = optax.GradientTransformationExtraArgs(
    lambda params: params,
    lambda grads, state, params, **_: (jax.tree.map(jnp.zeros_like, grads), grads),
)


@functools.cache
def stepped(model, accumulate=1):
    """(gradient, metric sums) of one training step, on the host."""
    objective = make_objective(model)
    params = stack_params(objective.electra, start(model.architecture))
    key = jax.random.key(7)
    sums = jax.eval_shape(make_eval_step(objective), params, batch(), key)
    step = jax.jit(make_train_step(objective, KEEP, accumulate))
    state = step(TrainState.create(params, KEEP, sums), batch(), key, jnp.float32(0.1))
    return jax.device_get((state.opt_state, state.metric_sums))


def assert_same(found, expected):
    """The gradients of unrolled models, up to rounding."""
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale),
        found,
        expected,
    )


COUNTS = ("generator_count", "sampled", "generator_guessed", "generator_targets")


@pytest.mark.parametrize("accumulate", [2, pytest.param(8, marks=pytest.mark.full)])
def test_accumulation_is_the_whole_batch_in_parts(accumulate):
    whole, parts = stepped(MODEL), stepped(MODEL, accumulate)
    assert_same(parts[0], whole[0])
    for name in COUNTS:
        np.testing.assert_array_equal(whole[1][name], parts[1][name])


REMAT, SCAN, BOTH = {"remat": True}, {"scan": True}, {"remat": True, "scan": True}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (MODEL, REMAT),
        (MODEL, SCAN),
        (MODEL, BOTH),
        pytest.param(MODERN, REMAT, marks=pytest.mark.full),
        pytest.param(MODERN, SCAN, marks=pytest.mark.full),
        (MODERN, BOTH),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else x.architecture,
)
def test_rematerialisation_and_scan_give_the_same_losses_and_gradients(model, fields):
    plain, changed = stepped(model), dataclasses.replace(model, **fields)
    gradient, sums = stepped(changed)
    for name in ("generator_loss", "discriminator_loss"):
        np.testing.assert_allclose(sums[name], plain[1][name], rtol=1e-6)
    assert_same(unstack_params(make_objective(changed).electra, gradient), plain[0])


def test_a_step_is_compiled_once():
    objective, tx = make_objective(dataclasses.replace(MODEL, layers=1)), make_optimizer(OPTIMIZER)

    def create(key):
        params = init_params(objective.electra, key)
        sums = jax.eval_shape(make_eval_step(objective), params, batch(), key)
        return TrainState.create(params, tx, sums)

    key = jax.random.key(0)
    mesh = make_mesh(MeshConfig())
    shardings, _ = place(jax.eval_shape(create, key), PARTITION, mesh)
    state = jax.jit(create, out_shardings=shardings)(key)
    step = jax.jit(make_train_step(objective, tx), donate_argnums=0, out_shardings=shardings)
    for number in range(3):
        rows = jax.device_put(batch(seed=number), batch_sharding(mesh))
        state = step(state, rows, key, jnp.float32(0.0)).reset_metrics()
    assert step._cache_size() == 1


@pytest.mark.parametrize("model", [MODEL, MODERN], ids=lambda x: x.architecture)
def test_every_parameter_learns(model):
    """A parameter that the gradient does not reach would be one that only takes space."""
    flat = jax.tree_util.tree_leaves_with_path(stepped(model)[0])
    still = [jax.tree_util.keystr(p) for p, g in flat if not np.abs(g).max()]
    # All types are 0 here; a key's bias shifts all scores of a query alike.
    assert not [name for name in still if "type" not in name and "key" not in name]


def test_stacked_parameters_are_updated_as_those_of_the_layers():
    scanned = dataclasses.replace(MODEL, scan=True)
    optimizer = make_optimizer(OPTIMIZER)

    @jax.jit
    def updates(gradient, params):
        return optimizer.update(
            gradient, optimizer.init(params), params, step=jnp.int32(1), progress=jnp.float32(0.1)
        )[0]

    stack = functools.partial(stack_params, make_objective(scanned).electra)
    params = start("published")
    plain = updates(stepped(MODEL)[0], params)
    stacked = updates(stepped(scanned)[0], stack(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), stacked, stack(plain))
    assert max(np.abs(x).max() for x in jax.tree.leaves(plain)) > 1e-3


def test_bfloat16_stays_near_float32():
    losses = {
        dtype: stepped(dataclasses.replace(MODEL, dtype=dtype))[1]["generator_loss"]
        for dtype in ("float32", "bfloat16")
    }
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-3)
    assert losses["bfloat16"] != losses["float32"]
