"""Dropout: its statistics, its gradient, and that masks depend on the key and the place alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from electra_jax.models.dropout import dropout

SHAPE = (8, 4, 64, 96)


def masks(rate, seed, shape=SHAPE):
    return np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(seed)) > 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.013])
def test_share_and_scale(rate):
    """Another rate than was asked for, or a mean that changes with it."""
    x = np.asarray(dropout(jnp.ones(SHAPE), rate, jax.random.key(1)))
    kept = (x > 0).sum()
    assert stats.binomtest(int(kept), x.size, 1 - rate).pvalue > 1e-4
    np.testing.assert_allclose(x[x > 0], 1 / (1 - rate), rtol=1e-6)


def test_masks_have_no_pattern():
    """Neighbours along any dimension, rows, and masks of other keys that go together."""
    mask = masks(0.3, 0) - 0.7
    others = [mask[1:] * mask[:-1], mask[:, 1:] * mask[:, :-1], mask[:, :, 1:] * mask[:, :, :-1]]
    others += [mask[..., k:] * mask[..., :-k] for k in (1, 2, 16, 32)]
    others += [mask * (masks(0.3, seed) - 0.7) for seed in (1, 2, 3)]
    for product in others:
        error = product.mean() / (product.std() / product.size**0.5)
        assert abs(error) < 4.5, error
    # Shares of rows, columns and heads scatter as independent draws do.
    for axes in ((0, 1, 2), (0, 1, 3), (0, 2, 3), (3,)):
        kept = (mask > 0).sum(axis=axes).ravel()
        count = mask.size / kept.size
        squares = ((kept - 0.7 * count) ** 2 / (count * 0.7 * 0.3)).sum()
        assert 1e-5 < stats.chi2.sf(squares, kept.size) < 1 - 1e-5


def test_gradient_uses_the_same_mask():
    """A backward pass that hashes another mask than the forward pass."""
    key = jax.random.key(2)
    gradient = jax.grad(lambda x: dropout(x, 0.4, key).sum())(jnp.full(SHAPE, 3.0))
    np.testing.assert_array_equal(gradient, dropout(jnp.ones(SHAPE), 0.4, key))


def test_same_mask_on_any_mesh():
    """Masks that depend on where an element lies."""
    mesh = Mesh(np.asarray(jax.devices()[:4]).reshape(2, 2), ("a", "b"))
    x = jax.device_put(jnp.ones(SHAPE), NamedSharding(mesh, PartitionSpec("a", None, "b")))
    sharded = jax.jit(lambda x: dropout(x, 0.3, jax.random.key(0)))(x)
    np.testing.assert_array_equal(np.asarray(sharded) > 0, masks(0.3, 0))


def test_dtype_and_no_rate():
    """A float32 array out of bfloat16; keys drawn for nothing."""
    x = jnp.ones((4, 4), jnp.bfloat16)
    assert dropout(x, 0.5, jax.random.key(0)).dtype == jnp.bfloat16
    assert dropout(x, 0.0, jax.random.key(0)) is x
