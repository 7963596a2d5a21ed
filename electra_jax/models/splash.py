"""Splash attention on a TPU: no scores in memory, and no work for blocks outside a window.

The kernel is JAX's own (jax.experimental.pallas.ops.tpu.splash_attention). Its segment ids are
documents, padding among them, so that its contract is that of models/attention.py. A compiler
does not look into it: each device is given its own rows and heads.
"""

import math
from collections.abc import Callable

import jax

from electra_jax.models import layout

LANES = 128  # rows are cut into multiples of it
BLOCKS = (512, 256, LANES)  # queries, and keys, of a block: as many as divide the row


def suits(query_BLNK: jax.Array, direction: int, dropout: float) -> bool:
    """True if the kernel can do what is asked: whole lanes of tokens, both sides, no dropout."""
    return query_BLNK.shape[1] % LANES == 0 and not direction and not dropout


def attend(
    query_BLNK: jax.Array,
    key_BLNK: jax.Array,
    value_BLNK: jax.Array,
    documents_BL: jax.Array,
    window: int | None,
    interpret: bool = False,
) -> jax.Array:
    """Attention of both sides without dropout; arguments as in `attention.attend`.

    Args:
      interpret: run the kernel on any device, slowly.
    """

    def on_device(
        query_BLNK: jax.Array, key_BLNK: jax.Array, value_BLNK: jax.Array, documents_BL: jax.Array
    ) -> jax.Array:
        attend_row = _kernel(query_BLNK.shape, window, interpret)
        scaled_BLNK = query_BLNK / math.sqrt(query_BLNK.shape[-1])
        heads = (x.swapaxes(1, 2) for x in (scaled_BLNK, key_BLNK, value_BLNK))
        return jax.vmap(attend_row)(*heads, documents_BL).swapaxes(1, 2)

    heads = query_BLNK, key_BLNK, value_BLNK
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return on_device(*heads, documents_BL)
    of_heads = layout.partition(query_BLNK.shape, "batch", None, "heads")
    of_documents = layout.partition(documents_BL.shape, "batch")
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(of_heads, of_heads, of_heads, of_documents),
        out_specs=of_heads,
        check_vma=False,
    )(*heads, documents_BL)


def _kernel(
    shape_BLNK: tuple[int, ...], window: int | None, interpret: bool
) -> Callable[..., jax.Array]:
    """Attention of one row: queries, keys and values [N, L, K] and documents [L] to [N, L, K]."""
    # Imported here: it takes a third of a second.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, length, heads, _ = shape_BLNK
    square = (length, length)
    mask: masks.Mask = masks.FullMask(square)
    if window is not None:
        mask = masks.LocalMask(square, (window, window), offset=0)
    block = next(size for size in BLOCKS if length % size == 0)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    return lambda query, key, value, documents: kernel(
        query, key, value, kernels.SegmentIds(documents, documents)
    )
