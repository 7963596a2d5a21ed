"""Dropout whose masks are hashed where they are needed and never stored.

A mask is a function of two seed words and of the element's position: it fuses into what
reads it, forward and backward, is the same on any mesh, and costs a few integer operations
an element, where threefry has twenty rounds. The seeds come from the run's key.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

GOLDEN = 0x9E3779B9  # 2^32 / golden ratio, odd: neighbours get words that differ in all bits


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Sets elements to 0 with probability `rate` (exact to 2^-32) and scales the others up."""
    return _dropout(rate, x, jax.random.bits(key, (2,), jnp.uint32)) if rate else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _dropout(rate: float, x: jax.Array, seeds: jax.Array) -> jax.Array:
    kept = _hash_words(x.shape, seeds) >= jnp.uint32(rate * 2**32)
    return jnp.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)


# The residual is the seeds alone: the mask is hashed again, which is cheaper than reading it.
_dropout.defvjp(
    lambda rate, x, seeds: (_dropout(rate, x, seeds), seeds),
    lambda rate, seeds, gradient: (_dropout(rate, gradient, seeds), None),
)


def _hash_words(shape: tuple[int, ...], seeds: jax.Array) -> jax.Array:
    """A uniform word for each element, uint32.

    Rows are hashed first, so that an array may have more than 2^32 elements.
    """
    rows = jnp.zeros((*shape[:-1], 1), jnp.uint32)
    for axis in range(len(shape) - 1):
        stride = jnp.uint32(math.prod(shape[axis + 1 : -1]) % 2**32)
        rows += stride * jax.lax.broadcasted_iota(jnp.uint32, rows.shape, axis)
    columns = jnp.arange(shape[-1], dtype=jnp.uint32) * jnp.uint32(GOLDEN)
    return _mix((_mix(rows ^ seeds[0]) + columns) ^ seeds[1])


def _mix(word: jax.Array) -> jax.Array:
    """A permutation of 32-bit words, each of whose bits depends on all (Wellons' lowbias32)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x21F0AAAD)
    word = (word ^ (word >> 15)) * jnp.uint32(0xD35A2D97)
    return word ^ (word >> 15)


class Dropout(nn.Module):
    """`dropout` with a key of the stream "dropout"; nothing where `deterministic`."""

    rate: float
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        if nn.merge_param("deterministic", self.deterministic, deterministic) or not self.rate:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
