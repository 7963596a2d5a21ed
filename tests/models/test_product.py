"""Matrix products with gradients of their own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.models import product as product_module
from electra_jax.models.product import product
from electra_jax.parallel.mesh import MeshConfig, make_mesh, with_mesh


def values_and_gradients(function, x, w):
    shape = (*x.shape[:-1], w.shape[1])
    weights = jnp.linspace(-1.0, 1.0, math.prod(shape)).reshape(shape)

    def loss(x, w):
        return (function(x, w) * weights).sum().astype(jnp.float32)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, w)


@pytest.mark.parametrize("form", ["_flat_gradients", "_gradients"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(10, 4, 8, 24), (10, 4, 24, 8)], ids=["widens", "narrows"])
def test_gradients_are_those_of_the_plain_product(shape, dtype, form, monkeypatch):
    """A gradient that comes out transposed, or of another dtype; on a CPU and elsewhere."""
    monkeypatch.setattr(product_module, "_flat_gradients", getattr(product_module, form))
    *rows, inner, outer = shape
    x = jax.random.normal(jax.random.key(0), (*rows, inner), dtype)
    w = jax.random.normal(jax.random.key(1), (inner, outer), dtype)
    found, expected = (values_and_gradients(f, x, w) for f in (product, jnp.dot))
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


def test_rows_that_are_spread_over_devices_stay_there():
    """A layout that the partitioner does not know, and brings everything together for."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:4])
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.device_put(jax.random.normal(jax.random.key(0), (64, 8)), rows)
    w = jax.random.normal(jax.random.key(1), (8, 24))
    gradient = jax.jit(with_mesh(mesh, jax.grad(lambda x, w: (product(x, w) ** 2).sum(), (0, 1))))
    hlo = gradient.lower(x, w).compile().as_text()
    assert "all-gather" not in hlo and "all-reduce" in hlo
    np.testing.assert_allclose(gradient(x, w)[1], gradient(np.asarray(x), w)[1], rtol=1e-4)
