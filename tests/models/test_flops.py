"""Counted operations against the compiler's own count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.flops import encoder_flops_per_token, train_flops_per_token

PUBLISHED = ModelConfig(
    vocab_size=2000, layers=2, hidden=256, heads=4, intermediate=1024, embedding=128
)
MODERN = dataclasses.replace(
    PUBLISHED, architecture="modern", embedding=256, intermediate=640, hidden=256
)


@pytest.mark.parametrize("config", [PUBLISHED, MODERN], ids=lambda c: c.architecture)
def test_forward_count_agrees_with_the_compiler(config):
    """A product left out or counted twice."""
    rows, length, masked = 2, 64, 10
    generator = GeneratorConfig(width=1.0, depth=0.5)
    electra = Electra(config, generator)
    params = jax.eval_shape(functools.partial(init_params, electra), jax.random.key(0))
    row = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    slots = jax.ShapeDtypeStruct((rows, masked), jnp.int32)
    compiled = jax.jit(electra.apply).lower({"params": params}, row, row, row, slots).compile()
    counted = sum(train_flops_per_token(config, generator, length, masked).values()) / 3
    assert compiled.cost_analysis()["flops"] == pytest.approx(counted * rows * length, rel=0.05)


def test_published_small_at_128_tokens():
    small = ModelConfig(vocab_size=30522)
    flops = train_flops_per_token(small, GeneratorConfig(), 128, 19)
    assert sum(flops.values()) / 1e6 == pytest.approx(70.19, abs=0.01)


def test_local_layers_are_counted_by_what_they_see():
    local = dataclasses.replace(MODERN, layers=3, local_window=8)
    full = dataclasses.replace(MODERN, layers=3)
    saved = encoder_flops_per_token(full, 512) - encoder_flops_per_token(local, 512)
    assert saved == 2 * 4 * (512 - 17) * 256


def test_a_generator_that_predicts_everywhere_costs_more():
    shape, towers = ModelConfig(vocab_size=30522), GeneratorConfig(kind="two_tower")
    masked, everywhere = (
        train_flops_per_token(shape, towers, 128, 19, generates_everywhere=x)["masked_lm_head"]
        for x in (False, True)
    )
    assert everywhere == pytest.approx(128 / 19 * masked)
