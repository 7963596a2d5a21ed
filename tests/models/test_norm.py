"""The hand-written layer norm and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models.norm import LayerNorm, layer_norm


def plain(x, scale, bias, epsilon):
    y = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + epsilon)
    return y * scale + (0.0 if bias is None else bias)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5])
def test_value_and_gradients_are_those_of_the_formula(epsilon, with_bias):
    """A term of the gradient that is missing, or a scale that is left out of it."""
    # A spread of 3e-3 makes epsilon 1e-5 count.
    x, weights = (jax.random.normal(jax.random.key(i), (2, 3, 16)) for i in range(2))
    x = x * 3e-3 + 0.5
    scale = jnp.linspace(0.5, 2.0, 16)
    bias = jnp.linspace(-1.0, 1.0, 16) if with_bias else None
    ours = functools.partial(layer_norm, epsilon=epsilon, dtype=jnp.float32)

    @jax.jit
    def values_and_gradients(*inputs):
        return [
            jax.value_and_grad(
                lambda *inputs, norm=norm: jnp.sum(norm(*inputs) * weights), range(len(inputs))
            )(*inputs)
            for norm in (
                lambda x, scale, bias=None: plain(x, scale, bias, epsilon),
                lambda x, scale, bias=None: ours(x, scale, bias),
            )
        ]

    expected, found = values_and_gradients(x, scale, *([bias] if with_bias else []))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-2)


def test_bfloat16_input_has_float32_statistics_and_a_bfloat16_gradient():
    x = (100 + jax.random.normal(jax.random.key(0), (4, 256))).astype(jnp.bfloat16)
    norm = functools.partial(
        layer_norm, scale=jnp.ones(256), bias=None, epsilon=1e-12, dtype=jnp.float32
    )
    y = np.asarray(jax.jit(norm)(x))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y.std(-1), 1.0, rtol=1e-3)
    gradient = jax.eval_shape(jax.grad(lambda x: norm(x).sum()), x)
    assert gradient.dtype == jnp.bfloat16


def test_bias_is_optional_and_the_result_has_its_dtype():
    x = jax.random.normal(jax.random.key(0), (2, 4))
    params = {"scale": jnp.arange(4.0), "bias": jnp.full(4, 0.5)}
    y = LayerNorm(1e-5, True, jnp.float32).apply({"params": params}, x)
    np.testing.assert_allclose(y, plain(x, *params.values(), 1e-5), atol=1e-5)
    without = LayerNorm(1e-5, False, jnp.bfloat16)
    assert set(without.init(jax.random.key(0), x)["params"]) == {"scale"}
    assert without.apply({"params": {"scale": params["scale"]}}, x).dtype == jnp.bfloat16


def test_what_is_kept_for_the_gradient_is_the_input_as_it_came():
    """A float32 copy of each norm's input: a twentieth of a step's memory traffic."""
    x = jnp.ones((8, 64), jnp.bfloat16)
    _, pullback = jax.vjp(lambda x: layer_norm(x, jnp.ones(64), None, 1e-5, jnp.bfloat16), x)
    wide = [leaf for leaf in jax.tree.leaves(pullback) if leaf.shape == x.shape]
    assert [leaf.dtype for leaf in wide] == [jnp.bfloat16]
