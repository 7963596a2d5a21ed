"""Optimizers against the definitions they are named for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.config import load_config, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra, init_params
from electra_jax.parallel.partition import path_name
from electra_jax.training.optimizer import (
    OptimizerConfig,
    is_matrix,
    make_optimizer,
    schedule_factor,
)

PARAMS = {
    "dense": {"kernel": np.full((2, 3), 0.5), "bias": np.full(3, 0.5)},
    "norm": {"scale": np.ones(3)},
    "embeddings": {"word": np.full((4, 3), 0.5)},
}


def run(config, steps, total, params=PARAMS, scale=1.0):
    """Parameters after `steps` updates of `total`, with gradients drawn from a seed."""
    optimizer = make_optimizer(config)
    params = jax.tree.map(np.float32, params)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(
            gradients(params, step, scale), state, params,
            step=np.int32(step), progress=np.float32(step / total),
        )  # fmt: skip
        params = jax.tree.map(np.add, params, jax.device_get(updates))
    return params


def gradients(params, step, scale=1.0):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda x: np.float32(scale * rng.normal(size=x.shape)), params)


def test_adamw_is_the_official_one():
    """No bias correction; decay on all but biases and norms; the rate is that of the step."""
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=4, weight_decay=0.1)
    expected = jax.tree.map(np.array, PARAMS)
    m, v = (jax.tree.map(np.zeros_like, PARAMS) for _ in range(2))
    for step in range(8):
        g = gradients(PARAMS, step)
        norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(g)))
        g = jax.tree.map(lambda x, n=norm: x * min(1.0, 1.0 / n), g)
        rate = 1e-2 * min(1.0, step / 4) * (1 - step / 20)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b**2, v, g)
        u = jax.tree.map(lambda a, b: a / (np.sqrt(b) + 1e-6), m, v)
        u["dense"]["kernel"] += 0.1 * expected["dense"]["kernel"]
        u["embeddings"]["word"] += 0.1 * expected["embeddings"]["word"]
        expected = jax.tree.map(lambda p, x, r=rate: p - r * x, expected, u)
    found = run(config, 8, 20)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.5 * 0.9, 0.5, 0.0]),
        ("cosine", [0.0, 0.5 * 0.5 * (1 + np.cos(0.1 * np.pi)), 0.5, 0.0]),
        ("stable", [0.0, 0.5, 1.0, 0.0]),
        ("constant", [0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_schedules(schedule, expected):
    config = OptimizerConfig(schedule=schedule, warmup_steps=10, decay_share=0.5)
    points = [(0, 0.0), (5, 0.1), (50, 0.5), (100, 1.0)]
    found = [float(schedule_factor(config, jnp.float32(s), jnp.float32(p))) for s, p in points]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_separate_parameters_have_a_clip_and_a_rate_of_their_own():
    config = OptimizerConfig(
        name="adamw", separate="^dense/", separate_learning_rate=5e-4, learning_rate=1e-2,
        warmup_steps=1, schedule="constant", weight_decay=0.0,
    )  # fmt: skip
    small = run(config, 3, 3)
    # Whatever happens elsewhere does not change what is apart.
    huge = {**PARAMS, "norm": {"scale": np.full(3000, 1.0)}}
    np.testing.assert_array_equal(run(config, 3, 3)["dense"]["kernel"], small["dense"]["kernel"])
    moved = float(np.abs(small["dense"]["kernel"] - 0.5).max())
    others = float(np.abs(small["embeddings"]["word"] - 0.5).max())
    assert 10 < others / moved < 40
    assert run(config, 3, 3, huge)["norm"]["scale"].shape == (3000,)


@pytest.mark.slow
def test_muon_takes_the_matrices_and_adamw_the_rest():
    config = pretrain_config(load_config("pretrain/tiny", ["model.vocab_size=100"]).to_dict())
    assert config.optimizer.name == "muon"
    electra = Electra(config.model, config.generator)
    params = jax.eval_shape(partial(init_params, electra), jax.random.key(0))
    flat = jax.tree_util.tree_leaves_with_path(params)
    taken = {path_name(path) for path, leaf in flat if is_matrix(path, leaf)}
    left = {path_name(path) for path, _ in flat} - taken
    layer = "discriminator/encoder/layer_1"
    assert {
        f"{layer}/{name}/kernel" for name in ("query", "key", "value", "output", "wide", "narrow")
    } <= taken
    assert {"discriminator/dense/kernel", "generator/dense/kernel"} <= taken
    assert {
        "embeddings/word", "generator/bias", "discriminator/classifier/kernel",
        "discriminator/classifier/bias", "discriminator/norm/scale",
    } <= left  # fmt: skip
    assert not any("embeddings" in name or "norm" in name or "bias" in name for name in taken)


def test_muon_steps_are_orthogonal():
    config = OptimizerConfig(
        name="muon", learning_rate=1e-3, warmup_steps=1, schedule="constant", weight_decay=0.0
    )
    start = {"dense": {"kernel": np.zeros((8, 8))}, "stack": {"kernel": np.zeros((3, 8, 8))}}
    moved = run(config, 2, 2, start, scale=0.01)
    for matrix in (moved["dense"]["kernel"], *moved["stack"]["kernel"]):
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.max() / singular.min() < 2.5  # Newton-Schulz is rough by design


@pytest.mark.parametrize(
    "fields", [{"name": "adam"}, {"schedule": "liner"}, {"decay_share": 0.0}, {"clip": -1.0}]
)
def test_senseless_settings_are_refused(fields):
    with pytest.raises(UsageError, match=f"optimizer.{next(iter(fields))}"):
        OptimizerConfig(**fields)
