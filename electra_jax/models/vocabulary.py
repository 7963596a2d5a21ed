"""Logits over the vocabulary, which are never whole in memory.

A head returns what its logits are made of. `read` goes over them once, tile by tile, and keeps of
each tile what the loss, the guess and a sample need; its gradient computes the tiles again.

There are K tiles of T tokens, and P positions in all rows. A tile takes every K-th token, so
that a vocabulary that is cut up over devices is cut up in every tile.
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
        logits_PV = _product(_flat(self.x_BNE), self.word_VE.T.astype(self.x_BNE.dtype))
        return logits_PV.reshape(*self.x_BNE.shape[:2], -1) + self.bias_V

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
    rows = logits.x_BNE.shape[:2]
    x_PE = _flat(logits.x_BNE)
    tiles = _tiles(logits)
    count = len(tiles[0])

    def read_tile(tile: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        index, word_ET, bias_T = tile
        logits_PT = _product(x_PE, word_ET) + bias_T
        peak_P, weights_PT = _weights(logits_PT)
        guess_P = jnp.argmax(logits_PT, axis=-1).astype(jnp.int32) * count + index
        found = peak_P, weights_PT.sum(axis=-1), guess_P
        if uniform_BN2 is None:
            return found
        if temperature is not None or forbidden_BN is not None:
            scores_PT = logits_PT if temperature is None else logits_PT / temperature
            if forbidden_BN is not None:
                tokens_T = jnp.arange(bias_T.shape[0]) * count + index
                gold_PT = _flat(forbidden_BN)[:, None] == tokens_T
                scores_PT += jnp.where(gold_PT, FORBIDDEN, 0.0)
            peak_P, weights_PT = _weights(scores_PT)
        mass_P, drawn_P = _draw(weights_PT, _flat(uniform_BN2)[:, 1])
        return *found, peak_P, mass_P, drawn_P * count + index

    peak_KP, total_KP, guess_KP, *drawn = jax.lax.map(read_tile, (jnp.arange(count), *tiles))
    peak_P = peak_KP.max(axis=0)
    normalizer_P = peak_P + jnp.log((total_KP * jnp.exp(peak_KP - peak_P)).sum(axis=0))
    guess_P = _choose(guess_KP, jnp.argmax(peak_KP, axis=0))
    reading = Reading(normalizer_P.reshape(rows), guess_P.reshape(rows), None)
    if uniform_BN2 is None:
        return reading
    peak_KP, mass_KP, drawn_KP = drawn
    mass_KP *= jnp.exp(peak_KP - peak_KP.max(axis=0))
    tile_P, _ = _invert(mass_KP.T, _flat(uniform_BN2)[:, 0])
    return reading._replace(sample=_choose(drawn_KP, tile_P).reshape(rows))


def _forward(logits: VocabularyLogits, *sampling: Any) -> tuple[Reading, tuple]:
    reading = _read(logits, *sampling)
    return reading, (logits, reading.normalizer)


def _backward(saved: tuple, gradient: Reading) -> tuple:
    logits, normalizer_BN = saved
    x_PE, normalizer_P, gradient_P = map(_flat, (logits.x_BNE, normalizer_BN, gradient.normalizer))

    def tile_gradient(
        dx_PE: jax.Array, tile: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        word_ET, bias_T = tile
        logits_PT = _product(x_PE, word_ET) + bias_T
        d_PT = jnp.exp(logits_PT - normalizer_P[:, None]) * gradient_P[:, None]
        narrow_PT = d_PT.astype(x_PE.dtype)
        # In the dtype of the computation, as other matrices' gradients are: devices exchange it.
        dword_ET = jnp.dot(row_major(x_PE.T), narrow_PT)
        return dx_PE + _dot(narrow_PT, row_major(word_ET.T)), (dword_ET, d_PT.sum(axis=0))

    dx_PE, (dword_KET, dbias_KT) = jax.lax.scan(
        tile_gradient, jnp.zeros(x_PE.shape), _tiles(logits)
    )
    vocab_size, width = logits.word_VE.shape
    dword_VE = dword_KET.transpose(2, 0, 1).reshape(-1, width)[:vocab_size]
    found = VocabularyLogits(
        dx_PE.reshape(logits.x_BNE.shape).astype(logits.x_BNE.dtype),
        dword_VE.astype(logits.word_VE.dtype),
        dbias_KT.T.reshape(-1)[:vocab_size],
    )
    return found, None, None, None


_read.defvjp(_forward, _backward)


def _flat(x: jax.Array) -> jax.Array:
    """The positions of all rows, one after another: [B, N, …] to [P, …]."""
    return constrain(x.reshape(-1, *x.shape[2:]), "batch")


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


def _product(x_PE: jax.Array, word_ET: jax.Array) -> jax.Array:
    """Each position's products with words, float32 [P, T]."""
    return constrain(_dot(x_PE, word_ET), "batch", "vocabulary")


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.dot(x, y, preferred_element_type=jnp.float32)


def _weights(scores_PT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest score of each position, and all scores' exponentials in units of its own."""
    # A tile may hold nothing that is possible.
    peak_P = jnp.maximum(scores_PT.max(axis=-1), LOWEST)
    return peak_P, jnp.exp(scores_PT - peak_P[:, None])


def _draw(weights_PT: jax.Array, uniform_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of each position's weights, and the index of one drawn in proportion.

    First a block and then what lies in it: sums are short enough for float32.
    """
    weights_PSC = weights_PT.reshape(len(uniform_P), -1, BLOCK)
    blocks_PS = weights_PSC.sum(axis=-1)
    block_P, rest_P = _invert(blocks_PS, uniform_P)
    inside_PC = jnp.take_along_axis(weights_PSC, block_P[:, None, None], axis=1)[:, 0]
    index_P, _ = _invert(inside_PC, rest_P)
    return blocks_PS.sum(axis=-1), block_P * BLOCK + index_P


def _invert(weights_PC: jax.Array, uniform_P: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index that `uniform_P` falls on, and where within it, again in [0, 1)."""
    cumulative_PC = jnp.cumsum(weights_PC, axis=-1)
    possible_PC = weights_PC > 0
    total_P = jnp.where(possible_PC, cumulative_PC, 0.0).max(axis=-1)
    # Rounding must neither pass the end nor land on an impossible index.
    target_P = jnp.minimum(uniform_P * total_P, jnp.nextafter(total_P, 0.0))
    reached_PC = possible_PC & (cumulative_PC > target_P[:, None])
    index_P = jnp.argmax(reached_PC, axis=-1).astype(jnp.int32)
    end_P = jnp.take_along_axis(cumulative_PC, index_P[:, None], axis=-1)[:, 0]
    weight_P = jnp.take_along_axis(weights_PC, index_P[:, None], axis=-1)[:, 0]
    rest_P = 1.0 - (end_P - target_P) / weight_P
    return index_P, jnp.clip(rest_P, 0.0, 1.0 - 2.0**-24)


def _choose(x_KP: jax.Array, tile_P: jax.Array) -> jax.Array:
    """The value of one tile at each position."""
    return jnp.take_along_axis(x_KP, tile_P[None], axis=0)[0]
