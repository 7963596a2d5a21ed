"""Attention inside documents: one function, several kernels, one mask contract.

The contract: a token attends to every token of its own document and to nothing else.
`documents` numbers the documents of a row from 1; padding is 0 and sees only padding,
so no softmax is ever empty and no NaN can arise.
"""

import math

import jax
import jax.numpy as jnp

from electra_jax.models.dropout import dropout as drop

KERNELS = ("xla", "cudnn")


def positions_in_documents(documents_BL: jax.Array) -> jax.Array:
    """Position of each token within its document, int32 [B, L], from 0."""
    index_L = jnp.arange(documents_BL.shape[1], dtype=jnp.int32)
    starts_BL = jnp.diff(documents_BL, axis=1, prepend=-1) != 0
    return index_L - jax.lax.cummax(jnp.where(starts_BL, index_L, 0), axis=1)


def attention_mask(
    documents_BL: jax.Array, window: int | None = None, direction: int = 0
) -> jax.Array:
    """The attention mask, bool [B, 1, L, L]: which position may attend to which.

    Args:
      documents_BL: document numbers, 0 is padding.
      window: reach to each side, inclusive; None is the whole document.
      direction: 0 sees both sides, 1 itself and what is to the left, -1 to the right.
    """
    mask_BLL = documents_BL[:, :, None] == documents_BL[:, None, :]
    index_L = jnp.arange(documents_BL.shape[1])
    ahead_LL = index_L[None, :] - index_L[:, None]
    if window is not None:
        mask_BLL &= jnp.abs(ahead_LL) <= window
    if direction:
        mask_BLL &= direction * ahead_LL <= 0
    return mask_BLL[:, None]


def rotate(x_BLNK: jax.Array, positions_BL: jax.Array, theta: float) -> jax.Array:
    """Rotary positions on the two halves of each head (Su et al., 2021), in float32."""
    half = x_BLNK.shape[-1] // 2
    frequencies_K = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles_BL1K = positions_BL[..., None, None] * frequencies_K
    sin, cos = jnp.sin(angles_BL1K), jnp.cos(angles_BL1K)
    first, second = jnp.split(x_BLNK.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return rotated.astype(x_BLNK.dtype)


def attend(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    *,
    window: int | None = None,
    direction: int = 0,
    dropout: float = 0.0,
    dropout_key: jax.Array | None = None,
    kernel: str = "xla",
) -> jax.Array:
    """Scaled dot-product attention within documents; softmax in float32.

    Args:
      query_BLNK, key_BLNK, value_BLNK: N heads of size K.
      documents_BL: see the module's contract.
      window, direction: see `attention_mask`.
      dropout: share of attention weights dropped; needs `dropout_key`.
      kernel: "xla", or "cudnn" (NVIDIA, bfloat16 or float16, no dropout).

    Returns:
      [B, L, N, K] in the dtype of the values.
    """
    mask = attention_mask(documents_BL, window, direction)
    if kernel == "cudnn":
        if dropout:
            raise ValueError("the cudnn kernel has no dropout: set model.attention_dropout=0")
        return jax.nn.dot_product_attention(
            query_BLNK, key_BLNK, value_BLNK, mask=mask, implementation="cudnn"
        )
    scores_BNLS = jnp.einsum(
        "blnk,bsnk->bnls",
        query_BLNK / math.sqrt(query_BLNK.shape[-1]),
        key_BLNK,
        preferred_element_type=jnp.float32,
    )
    # Never a whole row: a token sees at least itself.
    scores_BNLS = jnp.where(mask, scores_BNLS, jnp.finfo(jnp.float32).min)
    weights_BNLS = jax.nn.softmax(scores_BNLS).astype(value_BLNK.dtype)
    if dropout:
        assert dropout_key is not None
        weights_BNLS = drop(weights_BNLS, dropout, dropout_key)
    return jnp.einsum("bnls,bsnk->blnk", weights_BNLS, value_BLNK)
