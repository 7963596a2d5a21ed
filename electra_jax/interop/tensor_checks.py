"""Whether the tensors of an imported file are what is read of them, no more and no less."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.errors import UsageError
from electra_jax.interop import names
from electra_jax.interop.huggingface_config import CLASSES
from electra_jax.models.encoder import ModelConfig

log = logging.getLogger(__name__)

# More than any file has: the arrays of a checkpoint are compressed, but are not nothing.
PARAMS_PER_BYTE = 32
# The first parts of the names of a network's head.
HEADS = {
    "discriminator": {"discriminator_predictions", "head", "classifier"},
    "masked_lm": {"generator_predictions", "generator_lm_head", "head", "decoder"},
    "generator": {"generator_predictions", "generator_lm_head", "head", "decoder"},
}


def check_room(model: ModelConfig, files: Iterable[Path]) -> None:
    """Refuses a model whose parameters cannot be in its files, before memory is taken for them.

    Raises:
      UsageError: it is too large, or a file cannot be looked at.
    """
    try:
        held = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
    if model.least_params > PARAMS_PER_BYTE * held:
        raise UsageError(
            f"config.json describes {model.least_params:,} parameters and more, for which the "
            f"{held:,} bytes of its weights have no room: one of them is damaged"
        )


def check_tied(
    config: Mapping[str, Any],
    model: ModelConfig,
    network: str,
    tensors: Mapping[str, np.ndarray],
    flat: Mapping[str, np.ndarray],
) -> None:
    """Refuses an output matrix that is not the embeddings'.

    Raises:
      UsageError: there is one, or should be.
    """
    if network not in ("generator", "masked_lm"):
        return
    name = names.tied_output(model)
    words = flat["embeddings/word"]
    if name in tensors:
        if np.array_equal(np.asarray(tensors[name], np.float32), words):
            return
    elif config.get("tie_word_embeddings", True):
        return
    raise UsageError(
        f"its output matrix ({name}) is not that of its embeddings (tie_word_embeddings=false), "
        "which this model's is: to import the encoder alone, set architectures in config.json to "
        f"{CLASSES[model.architecture, 'encoder']}"
    )


def check_unread(
    tensors: Mapping[str, np.ndarray], read: set[str], prefix: str, network: str
) -> None:
    """Refuses tensors that would change what is read; logs those of heads that are left out.

    Raises:
      UsageError: names the first.
    """
    unread = [name for name in sorted(tensors) if name not in read and not _is_known(name)]
    body = {name.split(".")[0] for name in read} - {"head", "classifier", "decoder"}
    parts = ("embeddings.", "embeddings_project.", "encoder.", "layers.", "final_norm.")
    for name in unread:
        inside = name.startswith(tuple(prefix + part for part in parts))
        if inside or (network and name.split(".")[0] in body | HEADS[network]):
            raise UsageError(
                f"tensor {name} is not read: the model has a part, or a setting, that this "
                "encoder has not"
            )
    if left := sorted({".".join(name.split(".")[:2]) for name in unread}):
        log.info("%-11s left out: %s", "tensors", ", ".join(left))


def _is_known(name: str) -> bool:
    """Whether a tensor says nothing that the model's shape does not."""
    return name.endswith((".position_ids", ".token_type_ids", ".inv_freq")) or name in (
        "generator_lm_head.weight", "decoder.weight"
    )  # fmt: skip


def check_shapes(model: ModelConfig, flat: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays of other shapes than config.json says.

    Raises:
      UsageError: names the first.
    """
    wide = model.intermediate * (2 if model.block.gated else 1)
    sizes = {
        "embeddings/word": (model.vocab_size, model.embedding),
        "embeddings/position": (model.max_positions, model.embedding),
        "embeddings/type": (model.token_types, model.embedding),
        "bias": (model.vocab_size,),
    }
    for layer in range(model.layers):
        for name in ("query", "key", "value", "output"):
            sizes[f"encoder/layer_{layer}/{name}/kernel"] = (model.hidden, model.hidden)
        sizes[f"encoder/layer_{layer}/wide/kernel"] = (model.hidden, wide)
        sizes[f"encoder/layer_{layer}/narrow/kernel"] = (model.intermediate, model.hidden)
    for name, size in sizes.items():
        if name in flat and flat[name].shape != size:
            raise UsageError(
                f"{name} has the shape {flat[name].shape} where config.json says {size}"
            )
