"""Attention: who sees whom, positions, and the product itself, against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.models import attention, attention_kernels, splash
from electra_jax.models.dropout import dropout

DOCUMENTS = np.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 2, 2, 2, 3, 3]])


def plain_mask(documents, window=None, direction=0):
    index = jnp.arange(documents.shape[1])
    ahead = index[None, :] - index[:, None]
    return attention_kernels.visible(documents, documents, ahead, window, direction)


def test_positions_restart_in_each_document():
    positions = jax.jit(attention.positions_in_documents)(DOCUMENTS)
    positions = np.asarray(positions)
    np.testing.assert_array_equal(positions[0, :5], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(positions[1], [0, 0, 1, 2, 3, 4, 0, 1])


@pytest.mark.parametrize("window", [None, 0, 2])
def test_mask_holds_document_borders_and_an_inclusive_window(window):
    mask = np.asarray(plain_mask(DOCUMENTS, window))
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
    mask = np.asarray(plain_mask(DOCUMENTS, window))
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


def packed_rows(length):
    """Documents of 1 to 15 tokens, and padding; and three arrays of two heads of 8."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(1, length + 1), rng.integers(1, 16, length))[:length]
    documents = np.stack([documents, np.where(np.arange(length) < length - 5, documents, 0)])
    heads = [rng.normal(size=(2, length, 2, 8)).astype(np.float32) for _ in range(3)]
    return heads, jnp.asarray(documents)


def with_gradients(attend, heads):
    def loss(*heads):
        return jnp.sin(attend(*heads)).sum()

    return jax.jit(lambda *heads: (attend(*heads), jax.grad(loss, (0, 1, 2))(*heads)))(*heads)


FORMS = {
    "local": lambda *arrays, window, direction: attention_kernels.xla(
        *arrays, window, direction, 0.0, None
    ),
    "chunks": lambda *arrays, window, direction: attention_kernels._in_chunks(
        *arrays, window, direction, 0.0, None
    ),
    "splash": lambda *arrays, window, direction: splash.attend(*arrays, window, interpret=True),
}


@pytest.mark.parametrize(
    "form, length, window, direction",
    [
        ("local", 30, 3, 0), ("local", 30, 3, 1), ("local", 30, 4, -1), ("local", 32, 0, 0),
        ("chunks", 30, None, 0), ("chunks", 30, 3, 1),
        pytest.param("splash", 256, None, 0, marks=pytest.mark.slow),
        pytest.param("splash", 256, 20, 0, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_every_form_of_attention_agrees_with_the_dense_one(
    form, length, window, direction, monkeypatch
):
    monkeypatch.setattr(attention_kernels, "BLOCK", 4)
    monkeypatch.setattr(attention_kernels, "CHUNK", 8)
    heads, documents = packed_rows(length)
    mask = plain_mask(documents, window, direction)

    def dense(*heads):
        return attention_kernels._mix(*heads, mask, 0.0, None)

    def other(*heads):
        return FORMS[form](*heads, documents, window=window, direction=direction)

    expected, found = with_gradients(dense, heads), with_gradients(other, heads)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_gradient_is_the_one_that_jax_derives(rate):
    heads, documents = packed_rows(24)
    mask, key = plain_mask(documents), jax.random.key(3)

    def derived(query, keys, value):
        scores = jnp.einsum("bqnk,bsnk->bnqs", query, keys) / np.sqrt(8)
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e30))
        return jnp.einsum("bnqs,bsnk->bqnk", dropout(weights, rate, key), value)

    def ours(*heads):
        return attention.attend(*heads, documents, dropout=rate, dropout_key=key)

    expected, found = with_gradients(derived, heads), with_gradients(ours, heads)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_dropout_of_long_rows_has_its_rate_and_no_mask_twice(window, monkeypatch):
    """With zero scores each output is the share of kept weights, over the share to be kept."""
    monkeypatch.setattr(attention_kernels, "BLOCK", 4)
    monkeypatch.setattr(attention_kernels, "CHUNK", 16)
    zeros, ones = jnp.zeros((1, 64, 50, 1)), jnp.ones((1, 64, 50, 1))
    attend = functools.partial(attention.attend, window=window, dropout=0.25)
    mixed = attend(zeros, zeros, ones, jnp.ones((1, 64), int), dropout_key=jax.random.key(0))
    assert float(mixed.mean()) == pytest.approx(1.0, abs=0.02)
    assert len(np.unique(mixed[0].sum(axis=-1))) > 16


def operations(length, window):
    heads = [jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)] * 3
    documents = jax.ShapeDtypeStruct((1, length), jnp.int32)
    attend = jax.jit(functools.partial(attention.attend, window=window))
    return attend.lower(*heads, documents).compile().cost_analysis()["flops"]


def test_a_local_layer_costs_what_its_window_costs():
    assert operations(2048, 16) < 2.2 * operations(1024, 16)
    assert operations(512, None) > 3.5 * operations(256, None)


def test_scores_of_a_long_row_are_never_in_memory_together():
    length = 4096
    heads = [jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)] * 3
    documents = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def loss(query, key, value, documents):
        return attention.attend(query, key, value, documents).sum()

    compiled = jax.jit(jax.grad(loss)).lower(*heads, documents).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * length * length * 4 / 2


@pytest.mark.parametrize(
    "length, direction, dropout, suited",
    [(256, 0, 0.0, True), (200, 0, 0.0, False), (256, 1, 0.0, False), (256, 0, 0.1, False)],
)
def test_splash_attention_is_taken_for_what_it_can_do(length, direction, dropout, suited):
    assert splash.suits(jnp.zeros((1, length, 1, 1)), direction, dropout) is suited


def test_auto_is_xla_where_there_is_no_tpu():
    heads, documents = packed_rows(128)
    np.testing.assert_array_equal(
        attention.attend(*heads, documents, kernel="auto"), attention.attend(*heads, documents)
    )
