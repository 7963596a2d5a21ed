"""Attention as XLA compiles it for any device: dense, in chunks, or within a window's blocks.

The cost of a local layer grows with its window and not with the row; that of a global layer
grows with the row, but not its memory: chunks of queries are computed one after another, and
again in the backward pass.
"""

import functools
import math

import jax
import jax.numpy as jnp

from electra_jax.models.dropout import dropout as drop

BLOCK = 64  # least queries of a block: fewer are too few for a matrix product
CHUNK = 512  # queries whose scores are in memory together
NOBODY = -1  # document of what is there only to fill up a block


def visible(
    query_documents_BQ: jax.Array,
    key_documents_BS: jax.Array,
    ahead_QS: jax.Array,
    window: int | None = None,
    direction: int = 0,
) -> jax.Array:
    """The mask, bool [B, 1, Q, S]: which query may attend to which key.

    Args:
      query_documents_BQ, key_documents_BS: the document of each.
      ahead_QS: how far to the right of the query the key lies, in tokens.
      window, direction: see `attention.attend`.
    """
    mask_BQS = query_documents_BQ[:, :, None] == key_documents_BS[:, None, :]
    if window is not None:
        mask_BQS &= jnp.abs(ahead_QS) <= window
    if direction:
        mask_BQS &= direction * ahead_QS <= 0
    return mask_BQS[:, None]


def xla(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    window: int | None,
    direction: int,
    dropout: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Attention in whichever of the forms below costs least; arguments as in `attention.attend`."""
    heads = query_BLNK, key_BLNK, value_BLNK
    length = query_BLNK.shape[1]
    if window is not None and 3 * max(window, BLOCK) < length:
        return _local(*heads, documents_BL, window, direction, dropout, dropout_key)
    if length > 2 * CHUNK:
        return _in_chunks(*heads, documents_BL, window, direction, dropout, dropout_key)
    mask = visible(documents_BL, documents_BL, _ahead(length, length), window, direction)
    return _mix(*heads, mask, dropout, dropout_key)


def cudnn(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    window: int | None,
    direction: int,
) -> jax.Array:
    """Attention in one kernel of cuDNN: no scores in memory, but a dense mask."""
    length = query_BLNK.shape[1]
    mask = visible(documents_BL, documents_BL, _ahead(length, length), window, direction)
    return jax.nn.dot_product_attention(
        query_BLNK, key_BLNK, value_BLNK, mask=mask, implementation="cudnn"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(
    query_BQNK: jax.Array,
    key_BSNK: jax.Array,
    value_BSNK: jax.Array,
    mask_B1QS: jax.Array,
    dropout: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """The values, weighted by the softmax of the scores where the mask is true.

    Its gradient keeps the weights alone of all that has Q x S elements, in the dtype of the
    computation, and multiplies in that dtype; derived by JAX it keeps float32 copies and
    multiplies them.
    """
    return _forward(query_BQNK, key_BSNK, value_BSNK, mask_B1QS, dropout, dropout_key)[0]


def _forward(
    query_BQNK: jax.Array,
    key_BSNK: jax.Array,
    value_BSNK: jax.Array,
    mask_B1QS: jax.Array,
    dropout: float,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, tuple]:
    scaled_BQNK = query_BQNK / math.sqrt(query_BQNK.shape[-1])
    scores_BNQS = _scores(scaled_BQNK, key_BSNK)
    # Never a whole row: a token sees at least itself.
    scores_BNQS = jnp.where(mask_B1QS, scores_BNQS, jnp.finfo(jnp.float32).min)
    weights_BNQS = jax.nn.softmax(scores_BNQS).astype(value_BSNK.dtype)
    dropped_BNQS = _drop(weights_BNQS, dropout, dropout_key)
    mixed_BQNK = jnp.einsum("bnqs,bsnk->bqnk", dropped_BNQS, value_BSNK)
    saved = scaled_BQNK, key_BSNK, value_BSNK, weights_BNQS, mixed_BQNK, dropout_key
    return mixed_BQNK, saved


def _backward(dropout: float, saved: tuple, gradient_BQNK: jax.Array) -> tuple:
    scaled_BQNK, key_BSNK, value_BSNK, weights_BNQS, mixed_BQNK, dropout_key = saved
    dropped_BNQS = _drop(weights_BNQS, dropout, dropout_key)
    dvalue_BSNK = jnp.einsum("bnqs,bqnk->bsnk", dropped_BNQS, gradient_BQNK)
    dweights_BNQS = _drop(_scores(gradient_BQNK, value_BSNK), dropout, dropout_key)
    # The mean of dweights by weights (Dao et al., 2022, FlashAttention, equation 4).
    mean_BQN = jnp.einsum(
        "bqnk,bqnk->bqn", gradient_BQNK, mixed_BQNK, preferred_element_type=jnp.float32
    )
    centred_BNQS = dweights_BNQS - mean_BQN.swapaxes(1, 2)[..., None]
    dscores_BNQS = (weights_BNQS * centred_BNQS).astype(scaled_BQNK.dtype)
    dscaled_BQNK = jnp.einsum("bnqs,bsnk->bqnk", dscores_BNQS, key_BSNK)
    dkey_BSNK = jnp.einsum("bnqs,bqnk->bsnk", dscores_BNQS, scaled_BQNK)
    dquery_BQNK = dscaled_BQNK / math.sqrt(scaled_BQNK.shape[-1])
    return dquery_BQNK, dkey_BSNK, dvalue_BSNK, None, None


_mix.defvjp(_forward, _backward)


def _scores(query_BQNK: jax.Array, key_BSNK: jax.Array) -> jax.Array:
    """Each query's products with keys, float32 [B, N, Q, S]."""
    return jnp.einsum("bqnk,bsnk->bnqs", query_BQNK, key_BSNK, preferred_element_type=jnp.float32)


def _drop(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    if not rate:
        return x
    assert key is not None
    return drop(x, rate, key)


def _local(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    window: int,
    direction: int,
    dropout: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Attention of each block of queries to its own block of keys and the two beside it.

    A block is at least as long as the window, which so never reaches farther. Blocks are rows
    of a larger batch.
    """
    rows, length = documents_BL.shape
    size = max(window, BLOCK)

    def beside(x: jax.Array, fill: int = 0) -> jax.Array:
        edge = jnp.full_like(x[:, :1], fill)
        before = jnp.concatenate([edge, x[:, :-1]], axis=1)
        after = jnp.concatenate([x[:, 1:], edge], axis=1)
        return jnp.concatenate([before, x, after], axis=2)

    def as_rows(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])

    documents = _cut(documents_BL, size, NOBODY)
    mask = visible(
        as_rows(documents),
        as_rows(beside(documents, NOBODY)),
        _ahead(size, 3 * size) - size,
        window,
        direction,
    )
    mixed = _mix(
        as_rows(_cut(query_BLNK, size)),
        as_rows(beside(_cut(key_BLNK, size))),
        as_rows(beside(_cut(value_BLNK, size))),
        mask,
        dropout,
        dropout_key,
    )
    return mixed.reshape(rows, -1, *mixed.shape[2:])[:, :length]


def _in_chunks(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    window: int | None,
    direction: int,
    dropout: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    """Attention of CHUNK queries after another, none of whose scores are kept."""
    rows, length = documents_BL.shape

    @jax.checkpoint
    def attend_chunk(chunk: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        index, query, documents = chunk
        ahead = _ahead(CHUNK, length) - index * CHUNK
        mask = visible(documents, documents_BL, ahead, window, direction)
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        return _mix(query, key_BLNK, value_BLNK, mask, dropout, key)

    queries, documents = (
        jnp.moveaxis(x, 1, 0) for x in (_cut(query_BLNK, CHUNK), _cut(documents_BL, CHUNK, NOBODY))
    )
    mixed = jax.lax.map(attend_chunk, (jnp.arange(len(queries)), queries, documents))
    mixed = jnp.moveaxis(mixed, 0, 1)
    return mixed.reshape(rows, -1, *mixed.shape[3:])[:, :length]


def _cut(x: jax.Array, size: int, fill: int = 0) -> jax.Array:
    """Parts of so many tokens, the last one filled up: [B, L, …] to [B, parts, size, …]."""
    rows, length, *rest = x.shape
    padding = [(0, 0), (0, -length % size)] + [(0, 0)] * len(rest)
    return jnp.pad(x, padding, constant_values=fill).reshape(rows, -1, size, *rest)


def _ahead(queries: int, keys: int) -> jax.Array:
    """How far to the right of each query each key lies, if both begin together: [Q, S]."""
    return jnp.arange(keys)[None, :] - jnp.arange(queries)[:, None]
