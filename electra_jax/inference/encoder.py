"""An encoder without its pretraining's head: its outputs for examples, and vectors of texts."""

import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from electra_jax.data.examples import Batches, Example, join_segments
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.models.encoder import POOLINGS, ModelConfig
from electra_jax.models.heads import EncoderWithHead, PoolingHead
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.runtime import global_batches, to_host
from electra_jax.system.progress import Progress

log = logging.getLogger(__name__)

ROWS = 32  # of a batch


class PretrainedEncoder(NamedTuple):
    """A pretrained encoder without its head: `embeddings` and `encoder`, unstacked."""

    model: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer
    length: int  # tokens of the rows that it was trained on, at most; as far as is known


@functools.cache
def compiled(network: EncoderWithHead) -> Any:
    """A network's outputs from parameters and a batch; equal networks share a program."""
    return jax.jit(lambda params, batch: network.apply({"params": params}, batch))


def run_examples(apply: Any, params: Any, batches: Batches, mesh: Mesh) -> Iterator[tuple]:
    """Yields the outputs of `apply(params, batch)` for each batch, and the indices of its examples.

    Every process gets all of the outputs; those of rows that only fill up are left in.
    """
    indices_of = (indices for _, indices in batches.once([]))
    rows = global_batches(
        lambda mine: (batch for batch, _ in batches.once(mine)), mesh, batches.batch_size
    )
    for batch, indices in zip(rows, indices_of, strict=True):
        yield to_host(apply(params, batch)), indices


def embed(
    encoder: PretrainedEncoder,
    texts: Sequence[str],
    length: int,
    pooling: str = "mean",
    progress: bool = False,
) -> np.ndarray:
    """Unit vectors of texts, float32 [texts, hidden].

    Texts longer than `length` tokens are cut, and counted in a warning.

    Raises:
      UsageError: a pooling that is neither "mean" nor "cls".
    """
    if pooling not in POOLINGS:
        raise UsageError(f"pooling {pooling!r} is unknown; use mean or cls")
    examples, cut = [], 0
    for index, ids in enumerate(encoder.tokenizer.encode(list(texts))):
        cut += len(ids) > length - 2
        tokens, types = join_segments(encoder.tokenizer, ids, None, length)
        examples.append(Example([tokens], [types], {}, index))
    if cut:
        log.warning("%d of %d texts are cut to %d tokens", cut, len(examples), length)
    return embed_examples(encoder, examples, pooling, progress)


def embed_examples(
    encoder: PretrainedEncoder,
    examples: Sequence[Example],
    pooling: str = "mean",
    progress: bool = False,
) -> np.ndarray:
    """Unit vectors of examples of one row each, float32 [examples, hidden]."""
    vectors = np.zeros((len(examples), encoder.model.hidden), np.float32)
    if not examples:
        return vectors
    batches = Batches(examples, ROWS, encoder.tokenizer.pad_id, fixed_lengths=True)
    apply = compiled(EncoderWithHead(encoder.model, PoolingHead(pooling)))
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    with Progress(len(examples), unit="texts", shown=progress) as bar:
        for output, numbers in run_examples(apply, encoder.params, batches, mesh):
            vectors[numbers] = output[: len(numbers)]
            bar.add(len(numbers))
    return vectors
