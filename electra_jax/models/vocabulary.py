"""Logits over the vocabulary, which are never whole in memory.

A head returns what its logits are made of. `read` goes over them once, tile by tile, and keeps of
each tile what the loss, the guess and a sample need; its gradient computes the tiles again.

There are K tiles of T tokens. A tile takes every K-th token, so that a vocabulary that is cut up
over devices is cut up in every tile.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from electra_jax.models.layout import constrain
from electra_jax.models.product import row_major

TILE = 4096  # tokens: enough for a matrix product, and few enough for a cache
BLOCK = 128
FORBIDDEN = -1000.0
LOWEST = jnp.finfo(jnp.float32).min


class VocabularyLogits(NamedTuple):
    """Logits x·word + bias, not yet computed, of N positions in each of B rows."""

    x_BNE: jax.Array  # in the dtype of the computation
    word_VE: jax.Array
    bias_V: jax.Array

    def whole(self) -> jax.Array:
        """All logits, float32 [B, N, V]."""
        return _product(self.x_BNE, self.word_VE.T.astype(self.x_BNE.dtype)) + self.bias_V

    def take(self, positions_BN: jax.Array) -> "VocabularyLogits":
        """The logits at some positions."""
        return self._replace(x_BNE=take_positions(self.x_BNE, positions_BN))

    def cooled(self, temperature: float | jax.Array) -> "VocabularyLogits":
        """The logits divided by a temperature; themselves, if that changes nothing."""
        if _changes_nothing(temperature):
            return self
        x_BNE = (self.x_BNE / temperature).astype(self.x_BNE.dtype)
        return self._replace(x_BNE=x_BNE, bias_V=self.bias_V / temperature)

    def at(self, tokens_BN: jax.Array) -> jax.Array:
        """The logit of one token at each position, float32 [B, N]."""
        word_VE = constrain(self.word_VE, "vocabulary")
        word_BNE = constrain(word_VE[tokens_BN].astype(self.x_BNE.dtype), "batch")
        dots_BN = jnp.einsum(
            "bne,bne->bn", self.x_BNE, word_BNE, preferred_element_type=jnp.float32
        )
        return dots_BN + self.bias_V[tokens_BN]


class Reading(NamedTuple):
    """What `read` finds at each position, all [B, N]."""

    normalizer: jax.Array  # logsumexp of the logits, float32
    guess: jax.Array  # the token of the largest one, int32
    sample: Any  # a token of softmax(logits / temperature), int32; or None


def take_positions(x_BLD: jax.Array, positions_BN: jax.Array) -> jax.Array:
    """The vectors at the given positions, [B, N, D]."""
    return jnp.take_along_axis(x_BLD, positions_BN[..., None], axis=1)


def read(
    logits: VocabularyLogits,
    uniform_BN2: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    forbidden_BN: jax.Array | None = None,
) -> Reading:
    """The normalizer, a guess and a sample at each position, in one pass over the vocabulary.

    Sampling by inverting the cumulative distribution is exact, as Gumbel-argmax is, but needs
    two uniform numbers a position where that needs one a vocabulary entry: one chooses the
    tile, the other the token in it.

    Args:
      logits: of a head. The normalizer has a gradient; guesses and samples have none.
      uniform_BN2: two numbers in [0, 1) for each sample; None: nothing is sampled.
      temperature: of the sampling only; the normalizer never sees it.
      forbidden_BN: a token that must not be drawn, or None.
    """
    hot = None if _changes_nothing(temperature) else temperature
    return _read(logits, uniform_BN2, hot, forbidden_BN)


def _changes_nothing(temperature: float | jax.Array) -> bool:
    return isinstance(temperature, float) and temperature == 1.0


@jax.custom_vjp
def _read(
    logits: VocabularyLogits,
    uniform_BN2: jax.Array | None,
    temperature: float | jax.Array | None,
    forbidden_BN: jax.Array | None,
) -> Reading:
    tiles = _tiles(logits)
    count = len(tiles[0])

    def read_tile(tile: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        index, word_ET, bias_T = tile
        logits_BNT = _product(logits.x_BNE, word_ET) + bias_T
        peak_BN, weights_BNT = _weights(logits_BNT)
        guess_BN = jnp.argmax(logits_BNT, axis=-1).astype(jnp.int32) * count + index
        found = peak_BN, weights_BNT.sum(axis=-1), guess_BN
        if uniform_BN2 is None:
            return found
        if temperature is not None or forbidden_BN is not None:
            scores_BNT = logits_BNT if temperature is None else logits_BNT / temperature
            if forbidden_BN is not None:
                tokens_T = jnp.arange(bias_T.shape[0]) * count + index
                gold_BNT = forbidden_BN[..., None] == tokens_T
                scores_BNT += jnp.where(gold_BNT, FORBIDDEN, 0.0)
            peak_BN, weights_BNT = _weights(scores_BNT)
        mass_BN, drawn_BN = _draw(weights_BNT, uniform_BN2[..., 1])
        return *found, peak_BN, mass_BN, drawn_BN * count + index

    peak_KBN, total_KBN, guess_KBN, *drawn = jax.lax.map(read_tile, (jnp.arange(count), *tiles))
    peak_BN = peak_KBN.max(axis=0)
    normalizer_BN = peak_BN + jnp.log((total_KBN * jnp.exp(peak_KBN - peak_BN)).sum(axis=0))
    guess_BN = _choose(guess_KBN, jnp.argmax(peak_KBN, axis=0))
    if uniform_BN2 is None:
        return Reading(normalizer_BN, guess_BN, None)
    peak_KBN, mass_KBN, drawn_KBN = drawn
    mass_KBN *= jnp.exp(peak_KBN - peak_KBN.max(axis=0))
    tile_BN, _ = _invert(jnp.moveaxis(mass_KBN, 0, -1), uniform_BN2[..., 0])
    return Reading(normalizer_BN, guess_BN, _choose(drawn_KBN, tile_BN))


def _forward(logits: VocabularyLogits, *sampling: Any) -> tuple[Reading, tuple]:
    reading = _read(logits, *sampling)
    return reading, (logits, reading.normalizer)


def _backward(saved: tuple, gradient: Reading) -> tuple:
    logits, normalizer_BN = saved
    x_BNE, gradient_BN = logits.x_BNE, gradient.normalizer

    def tile_gradient(
        dx_BNE: jax.Array, tile: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        word_ET, bias_T = tile
        logits_BNT = _product(x_BNE, word_ET) + bias_T
        d_BNT = jnp.exp(logits_BNT - normalizer_BN[..., None]) * gradient_BN[..., None]
        d_PT = d_BNT.reshape(-1, d_BNT.shape[-1])
        x_PE = x_BNE.reshape(-1, x_BNE.shape[-1])
        narrow_PT = d_PT.astype(x_PE.dtype)
        dx_PE = _dot(narrow_PT, row_major(word_ET.T))
        dword_ET = _dot(row_major(x_PE.T), narrow_PT)
        return dx_BNE + dx_PE.reshape(dx_BNE.shape), (dword_ET, d_PT.sum(axis=0))

    dx_BNE, (dword_KET, dbias_KT) = jax.lax.scan(
        tile_gradient, jnp.zeros(x_BNE.shape), _tiles(logits)
    )
    vocab_size, width = logits.word_VE.shape
    dword_VE = dword_KET.transpose(2, 0, 1).reshape(-1, width)[:vocab_size]
    found = VocabularyLogits(
        dx_BNE.astype(x_BNE.dtype),
        dword_VE.astype(logits.word_VE.dtype),
        dbias_KT.T.reshape(-1)[:vocab_size],
    )
    return found, None, None, None


_read.defvjp(_forward, _backward)


def _tiles(logits: VocabularyLogits) -> tuple[jax.Array, jax.Array]:
    """The words and biases of each tile: [K, E, T], in the dtype of the computation, and [K, T].

    The vocabulary is filled up with tokens that are impossible.
    """
    vocab_size, width = logits.word_VE.shape
    count = math.ceil(vocab_size / TILE)
    size = math.ceil(vocab_size / (count * BLOCK)) * BLOCK
    padding = (0, size * count - vocab_size)
    word_VE = constrain(logits.word_VE, "vocabulary").astype(logits.x_BNE.dtype)
    word_TKE = jnp.pad(word_VE, (padding, (0, 0))).reshape(size, count, width)
    bias_V = jnp.pad(logits.bias_V, padding, constant_values=-jnp.inf)
    return row_major(word_TKE.transpose(1, 2, 0)), bias_V.reshape(size, count).T


def _product(x_BNE: jax.Array, word_ET: jax.Array) -> jax.Array:
    """Each position's products with words, float32 [B, N, T]."""
    products_PT = _dot(x_BNE.reshape(-1, x_BNE.shape[-1]), word_ET)
    return constrain(products_PT.reshape(*x_BNE.shape[:2], -1), "batch", None, "vocabulary")


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _weights(scores_BNT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest score of each position, and all scores' exponentials in units of its own."""
    # A tile may hold nothing that is possible.
    peak_BN = jnp.maximum(scores_BNT.max(axis=-1), LOWEST)
    return peak_BN, jnp.exp(scores_BNT - peak_BN[..., None])


def _draw(weights_BNT: jax.Array, uniform_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of each position's weights, and the index of one drawn in proportion.

    First a block and then what lies in it: sums are short enough for float32.
    """
    weights_BNSC = weights_BNT.reshape(*uniform_BN.shape, -1, BLOCK)
    blocks_BNS = weights_BNSC.sum(axis=-1)
    block_BN, rest_BN = _invert(blocks_BNS, uniform_BN)
    inside_BNC = jnp.take_along_axis(weights_BNSC, block_BN[..., None, None], axis=2)[:, :, 0]
    index_BN, _ = _invert(inside_BNC, rest_BN)
    return blocks_BNS.sum(axis=-1), block_BN * BLOCK + index_BN


def _invert(weights_BNC: jax.Array, uniform_BN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index that `uniform_BN` falls on, and where within it, again in [0, 1)."""
    cumulative_BNC = jnp.cumsum(weights_BNC, axis=-1)
    possible_BNC = weights_BNC > 0
    total_BN = jnp.where(possible_BNC, cumulative_BNC, 0.0).max(axis=-1)
    # Rounding must neither pass the end nor land on an impossible index.
    target_BN = jnp.minimum(uniform_BN * total_BN, jnp.nextafter(total_BN, 0.0))
    reached_BNC = possible_BNC & (cumulative_BNC > target_BN[..., None])
    index_BN = jnp.argmax(reached_BNC, axis=-1).astype(jnp.int32)
    end_BN = jnp.take_along_axis(cumulative_BNC, index_BN[..., None], axis=-1)[..., 0]
    weight_BN = jnp.take_along_axis(weights_BNC, index_BN[..., None], axis=-1)[..., 0]
    rest_BN = 1.0 - (end_BN - target_BN) / weight_BN
    return index_BN, jnp.clip(rest_BN, 0.0, 1.0 - 2.0**-24)


def _choose(x_KBN: jax.Array, tile_BN: jax.Array) -> jax.Array:
    """The value of one tile at each position."""
    return jnp.take_along_axis(x_KBN, tile_BN[None], axis=0)[0]
