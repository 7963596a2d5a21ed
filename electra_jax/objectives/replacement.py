"""The discriminator's input: rows with the generator's samples in place."""

import jax

from electra_jax.objectives import masking


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
