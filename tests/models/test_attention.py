"""Attention: who sees whom, positions, and the product itself, against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models import attention

DOCUMENTS = np.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 2, 2, 2, 3, 3]])


def test_positions_restart_in_each_document():
    positions = jax.jit(attention.positions_in_documents)(DOCUMENTS)
    positions = np.asarray(positions)
    np.testing.assert_array_equal(positions[0, :5], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(positions[1], [0, 0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize("window", [None, 0, 2])
def test_mask_holds_document_borders_and_an_inclusive_window(window):
    mask = np.asarray(attention.attention_mask(jnp.asarray(DOCUMENTS), window))
    for (row, _, i, j), seen in np.ndenumerate(mask):
        near = window is None or abs(i - j) <= window
        assert seen == (DOCUMENTS[row, i] == DOCUMENTS[row, j] and near), (row, i, j)


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_rotation_is_a_complex_product(theta):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 3, 6))
    positions = rng.integers(0, 500, (2, 8))
    angles = positions[..., None, None] * theta ** (-np.arange(3) / 3)
    turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)
    rotate = jax.jit(attention.rotate, static_argnums=2)
    rotated = np.asarray(rotate(np.float32(x), positions, theta))
    # float32 angles of up to 500 are known to 3e-5.
    np.testing.assert_allclose(rotated[..., :3], turned.real, atol=2e-4)
    np.testing.assert_allclose(rotated[..., 3:], turned.imag, atol=2e-4)


def test_rotated_products_depend_on_distance_alone():
    rng = np.random.default_rng(1)
    query, key = (rng.normal(size=(1, 1, 1, 8)).astype(np.float32) for _ in range(2))

    @jax.jit
    def rotated_product(i, j):
        at = [attention.rotate(x, jnp.full((1, 1), p), 1e4) for x, p in ((query, i), (key, j))]
        return jnp.sum(at[0] * at[1])

    def product(i, j):
        return float(rotated_product(i, j))

    assert product(3, 10) == pytest.approx(product(103, 110), abs=1e-4)
    assert abs(product(3, 10) - product(3, 11)) > 1e-3


def qkv(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, (2, 8, 2, 4)).astype(dtype) for key in keys]


@pytest.mark.parametrize("window", [None, 1])
def test_attend_is_softmax_of_scaled_products(window):
    query, key, value = (np.asarray(x, np.float64) for x in qkv())
    scores = np.einsum("bqnk,bsnk->bnqs", query, key) / np.sqrt(4)
    mask = np.asarray(attention.attention_mask(jnp.asarray(DOCUMENTS), window))
    weights = np.where(mask, np.exp(scores), 0)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bnqs,bsnk->bqnk", weights, value)
    attend = jax.jit(functools.partial(attention.attend, window=window))
    mixed = attend(*qkv(), DOCUMENTS)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


def test_a_row_of_padding_alone_gives_no_nan():
    mixed = attention.attend(*qkv(jnp.bfloat16), jnp.zeros((2, 8), jnp.int32))
    assert mixed.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(mixed).all())


def test_cudnn_refuses_dropout_rather_than_leave_it_out():
    with pytest.raises(ValueError, match="attention_dropout=0"):
        attention.attend(*qkv(), jnp.asarray(DOCUMENTS), dropout=0.1, kernel="cudnn")
