"""Attention inside documents: one function, several kernels, one mask contract.

The contract: a token attends to every token of its own document and to nothing else.
`documents` numbers the documents of a row from 1; padding is 0 and sees only padding,
so no softmax is ever empty and no NaN can arise.
"""

import functools

import jax
import jax.numpy as jnp

from electra_jax.models import attention_kernels, splash

# auto: splash attention on a TPU where it can do what is asked, else xla.
KERNELS = ("xla", "auto", "cudnn")


def positions_in_documents(documents_BL: jax.Array) -> jax.Array:
    """Position of each token within its document, int32 [B, L], from 0."""
    index_L = jnp.arange(documents_BL.shape[1], dtype=jnp.int32)
    starts_BL = jnp.diff(documents_BL, axis=1, prepend=-1) != 0
    return index_L - jax.lax.cummax(jnp.where(starts_BL, index_L, 0), axis=1)


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
      window: reach to each side, inclusive; None is the whole document.
      direction: 0 sees both sides, 1 itself and what is to the left, -1 to the right.
      dropout: share of attention weights dropped; needs `dropout_key`.
      kernel: "xla"; "cudnn" (NVIDIA, bfloat16 or float16, no dropout); or "auto", which on a
        TPU is splash attention for what that can do (see `splash.suits`), else "xla".

    Returns:
      [B, L, N, K] in the dtype of the values.
    """
    arrays = query_BLNK, key_BLNK, value_BLNK, documents_BL
    if kernel == "cudnn":
        if dropout:
            raise ValueError("the cudnn kernel has no dropout: set model.attention_dropout=0")
        return attention_kernels.cudnn(*arrays, window, direction)
    xla = functools.partial(
        attention_kernels.xla,
        window=window,
        direction=direction,
        dropout=dropout,
        dropout_key=dropout_key,
    )
    if kernel == "auto" and splash.suits(query_BLNK, direction, dropout):
        on_tpu = functools.partial(splash.attend, window=window)
        return jax.lax.platform_dependent(*arrays, tpu=on_tpu, default=xla)
    return xla(*arrays)
