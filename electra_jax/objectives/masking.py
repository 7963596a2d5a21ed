"""Which positions are masked, and what stands there (reference: the paper, section 3.1).

Positions are drawn without replacement; 85 % of them become [MASK] and 15 % keep their
token, as in the official code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

KEPT_SHARE = 0.15


class SpecialTokens(NamedTuple):
    """Ids that are never masked, and the one that masks."""

    pad: int
    cls: int
    sep: int
    mask: int


class Masked(NamedTuple):
    """Chosen positions. Slots beyond a row's number have weight 0."""

    positions_BN: jax.Array  # int32, distinct within a row
    weights_BN: jax.Array  # float32, 1 or 0


def max_masked(rate: float, length: int) -> int:
    """Slots for masked positions in a row of `length` tokens, as the official code has it."""
    return min(length, max(1, int((rate + 0.005) * length)))


def choose_positions(
    key: jax.Array,
    tokens_BL: jax.Array,
    documents_BL: jax.Array,
    rate: jax.Array | float,
    special: SpecialTokens,
    continuation_V: np.ndarray | None = None,
    slots: int | None = None,
) -> Masked:
    """Draws round(rate * real tokens) positions of each row, at least 1 if there are candidates.

    [CLS], [SEP], [MASK] and padding are never chosen; a row without candidates gets
    weights of 0.

    Args:
      key: of the draw.
      tokens_BL, documents_BL: the batch.
      rate: share of real tokens.
      special: ids that are never chosen, and [MASK].
      continuation_V: with it, whole words are drawn: as many as fit into the number, or
        a part of the first where not even that one fits. True for pieces that continue
        the word before them.
      slots: of each row, as many as the largest rate of the run needs; by default those of `rate`.
    """
    if slots is None:
        slots = max_masked(float(rate), tokens_BL.shape[1])
    real_BL = documents_BL > 0
    candidates_BL = real_BL
    for token in special:
        candidates_BL &= tokens_BL != token
    # The largest of independent uniforms are a draw without replacement.
    draws_BL = jax.random.uniform(key, tokens_BL.shape)
    if continuation_V is not None:
        words_BL = word_numbers(tokens_BL, documents_BL, candidates_BL, continuation_V)
        draws_BL = jnp.take_along_axis(draws_BL, words_BL, axis=1)
    draws_BL = jnp.where(candidates_BL, draws_BL, -jnp.inf)
    # Sorted, and not by top_k, which the compiler would gather every host's rows for.
    positions_BN = jnp.argsort(draws_BL, axis=1, descending=True)[:, :slots]
    wanted_B = jnp.clip(jnp.round(rate * real_BL.sum(axis=1)), 1, slots).astype(jnp.int32)
    number_B = jnp.minimum(wanted_B, candidates_BL.sum(axis=1))
    weights_BN = (jnp.arange(slots) < number_B[:, None]).astype(jnp.float32)
    if continuation_V is not None:
        # Equal draws lie side by side, so a word is cut only by the number's end.
        words_BN = jnp.take_along_axis(words_BL, positions_BN, axis=1)
        last_B = jnp.take_along_axis(words_BN, jnp.maximum(number_B - 1, 0)[:, None], axis=1)
        lengths_B = jnp.sum((words_BL == last_B) & candidates_BL, axis=1)
        taken_B = jnp.sum((words_BN == last_B) * weights_BN, axis=1)
        cut_B = (taken_B < lengths_B) & (taken_B < number_B)
        weights_BN *= ~(cut_B[:, None] & (words_BN == last_B))
    return Masked(positions_BN.astype(jnp.int32), weights_BN)


def word_numbers(
    tokens_BL: jax.Array,
    documents_BL: jax.Array,
    candidates_BL: jax.Array,
    continuation_V: np.ndarray,
) -> jax.Array:
    """The number of each token's word within its row, int32 [B, L], from 0."""
    continues_BL = jnp.asarray(continuation_V)[tokens_BL] & candidates_BL
    previous_BL = jnp.roll(candidates_BL, 1, axis=1) & (
        jnp.diff(documents_BL, axis=1, prepend=-1) == 0
    )
    return jnp.maximum(jnp.cumsum(~(continues_BL & previous_BL), axis=1) - 1, 0)


def chosen(masked: Masked, length: int) -> jax.Array:
    """Which positions are masked, bool [B, L]."""
    zeros_BL = jnp.zeros((masked.positions_BN.shape[0], length), bool)
    return put(zeros_BL, masked, jnp.ones_like(masked.positions_BN, bool))


def take(tokens_BL: jax.Array, masked: Masked) -> jax.Array:
    """Tokens at the chosen positions, int32 [B, N]."""
    return jnp.take_along_axis(tokens_BL, masked.positions_BN, axis=1)


def put(tokens_BL: jax.Array, masked: Masked, values_BN: jax.Array) -> jax.Array:
    """`tokens_BL` with `values_BN` at the chosen positions; slots of weight 0 change nothing."""
    values_BN = jnp.where(masked.weights_BN > 0, values_BN, take(tokens_BL, masked))
    # Row by row, so that rows on other devices are not asked for.
    return jax.vmap(lambda tokens_L, positions_N, values_N: tokens_L.at[positions_N].set(values_N))(
        tokens_BL, masked.positions_BN, values_BN
    )


def mask_tokens(
    key: jax.Array, tokens_BL: jax.Array, masked: Masked, special: SpecialTokens
) -> jax.Array:
    """The generator's input: [MASK] at 85 % of the chosen positions, the token at the rest."""
    kept_BN = jax.random.uniform(key, masked.positions_BN.shape) < KEPT_SHARE
    return put(tokens_BL, masked, jnp.where(kept_BN, take(tokens_BL, masked), special.mask))
