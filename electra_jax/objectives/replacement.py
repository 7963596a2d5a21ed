"""Replacements, sampled from the generator on the device.

Sampling by inverting the cumulative distribution is exact, as Gumbel-argmax is, but
needs one uniform number a position where that needs one a vocabulary entry: on a CPU
those numbers alone cost a tenth of a training step. The uniform numbers are drawn
for the whole batch at once, so samples depend neither on the mesh nor on accumulation.
"""

import jax
import jax.numpy as jnp

from electra_jax.objectives import masking

BLOCK = 128
FORBIDDEN = -1000.0


def sample(
    logits_BNV: jax.Array,
    uniform_BN: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    forbidden_BN: jax.Array | None = None,
) -> jax.Array:
    """Draws a token at every position from softmax(logits / temperature), in float32.

    Args:
      logits_BNV: the generator's logits; no gradient flows through the sample.
      uniform_BN: one number in [0, 1) for each sample.
      temperature: of the sampling only; the generator's loss never sees it.
      forbidden_BN: a token that must not be drawn (`disallow_correct`), or None.

    Returns:
      Token ids, int32 [B, N].
    """
    logits_BNV = jax.lax.stop_gradient(logits_BNV).astype(jnp.float32) / temperature
    vocab_size = logits_BNV.shape[-1]
    if forbidden_BN is not None:
        gold_BNV = forbidden_BN[..., None] == jnp.arange(vocab_size)
        logits_BNV = logits_BNV + jnp.where(gold_BNV, FORBIDDEN, 0.0)
    weights_BNV = jnp.exp(logits_BNV - logits_BNV.max(axis=-1, keepdims=True))
    # Two levels, first the block and then the token in it: one pass over the vocabulary,
    # and sums short enough for float32.
    padding = -vocab_size % BLOCK
    weights_BNKC = jnp.pad(weights_BNV, ((0, 0), (0, 0), (0, padding))).reshape(
        *uniform_BN.shape, -1, BLOCK
    )
    block_BN, rest_BN = _invert(weights_BNKC.sum(axis=-1), uniform_BN)
    inside_BNC = jnp.take_along_axis(weights_BNKC, block_BN[..., None, None], axis=2)[:, :, 0]
    token_BN, _ = _invert(inside_BNC, rest_BN)
    return block_BN * BLOCK + token_BN


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


def replace(
    tokens_BL: jax.Array, masked: masking.Masked, samples_BN: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The discriminator's input and its labels.

    A sample that equals the original counts as original.

    Returns:
      Tokens with the samples at the chosen positions, int32 [B, L], and whether each
      differs from the original, bool [B, L].
    """
    corrupted_BL = masking.put(tokens_BL, masked, samples_BN)
    return corrupted_BL, corrupted_BL != tokens_BL
