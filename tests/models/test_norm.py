"""The hand-written layer norm and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models.norm import LayerNorm, normalise

EPSILONS = (1e-12, 1e-5)


def plain(x, epsilon):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + epsilon)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_value_and_gradient_are_those_of_the_formula(epsilon):
    # A spread of 3e-3 makes epsilon 1e-5 count.
    x, weights = (jax.random.normal(jax.random.key(i), (2, 3, 16)) for i in range(2))
    x = x * 3e-3 + 0.5

    @jax.jit
    def value_and_gradient(x):
        return [
            jax.value_and_grad(lambda x, norm=norm: jnp.sum(norm(x, epsilon) * weights))(x)
            for norm in (plain, normalise)
        ]

    expected, found = value_and_gradient(x)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-2)


def test_bfloat16_input_has_float32_statistics_and_a_bfloat16_gradient():
    x = (100 + jax.random.normal(jax.random.key(0), (4, 256))).astype(jnp.bfloat16)
    y = np.asarray(jax.jit(normalise, static_argnums=1)(x, 1e-12))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y.std(-1), 1.0, rtol=1e-3)
    gradient = jax.eval_shape(jax.grad(lambda x: normalise(x, 1e-12).sum()), x)
    assert gradient.dtype == jnp.bfloat16


def test_scale_and_bias_are_applied_and_bias_is_optional():
    x = jax.random.normal(jax.random.key(0), (2, 4))
    scale, bias = jnp.arange(4.0), jnp.full(4, 0.5)
    y = LayerNorm(1e-5, True, jnp.float32).apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(y, plain(x, 1e-5) * scale + bias, atol=1e-5)
    without = LayerNorm(1e-5, False, jnp.bfloat16)
    assert set(without.init(jax.random.key(0), x)["params"]) == {"scale"}
    assert without.apply({"params": {"scale": scale}}, x).dtype == jnp.bfloat16
