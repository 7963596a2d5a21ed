"""The placement of every model's parameters on a mesh, and which models fit which mesh."""

import logging

from jax.sharding import Mesh, PartitionSpec

from electra_jax.errors import UsageError
from electra_jax.models.encoder import ModelConfig
from electra_jax.parallel.partition import Rules

log = logging.getLogger(__name__)

# The last two dimensions of each array; the batch lies over `data` and `fsdp`.
PARTITION: Rules = (
    (r"embeddings/word$", PartitionSpec("tensor", "fsdp")),
    (r"embedding_delta$", PartitionSpec("tensor", "fsdp")),
    (r"embeddings/(position|type)$", PartitionSpec(None, "fsdp")),
    (r"(query|key|value|wide)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"(output|narrow)/kernel$", PartitionSpec("tensor", "fsdp")),
    (r"(embeddings_project|dense)/kernel$", PartitionSpec("fsdp", None)),
    (r"(classifier|copy)/kernel$", PartitionSpec()),
    (r"/(bias|scale)$", PartitionSpec()),  # stacked over layers they have two dimensions
    (r"^metric_sums/", PartitionSpec()),
)
# Of a generator whose heads do not divide over `tensor`: Small's has a single one.
WHOLE_HEADS: Rules = (
    (r"(^|/)generator/.*(query|key|value)/kernel$", PartitionSpec("fsdp", None)),
    (r"(^|/)generator/.*output/kernel$", PartitionSpec(None, "fsdp")),
)
# A task's head is small; only the encoder is cut up.
FINETUNING: Rules = ((r"(^|/)head/", PartitionSpec()), *PARTITION)


def pretraining_rules(generator_heads: int, mesh: Mesh) -> Rules:
    """The placement of a pretraining state whose generator has that many attention heads."""
    return (*WHOLE_HEADS, *PARTITION) if generator_heads % mesh.shape["tensor"] else PARTITION


def check_heads(model: ModelConfig, mesh: Mesh) -> None:
    """Refuses tensor parallelism that would cut attention heads; warns of a whole vocabulary.

    Raises:
      UsageError: with the sizes that work.
    """
    parts = mesh.shape["tensor"]
    if model.heads % parts:
        sizes = [n for n in range(1, model.heads + 1) if not model.heads % n]
        nearest = sorted(sizes, key=lambda n: abs(n - parts))[:2]
        raise UsageError(
            f"mesh.tensor={parts} does not divide the {model.heads} attention heads; the nearest "
            f"that works: {' or '.join(map(str, sorted(nearest)))}"
        )
    if model.vocab_size % parts:
        log.warning(
            "the vocabulary of %s does not divide over mesh.tensor=%d: embeddings lie whole on "
            "each; model.vocab_size=%d would divide",
            f"{model.vocab_size:,}", parts, model.vocab_size + -model.vocab_size % (128 * parts),
        )  # fmt: skip
