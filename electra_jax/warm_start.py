"""Starts a run from another model: with another vocabulary, longer rows, or missing parts."""

import logging
from typing import Any

import numpy as np

from electra_jax.config import PretrainConfig
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference import Model
from electra_jax.interop.names import flatten, unflatten
from electra_jax.models.electra import roll, unroll

log = logging.getLogger(__name__)

# The arrays with a row for each piece of the vocabulary.
BY_PIECE = (
    "embeddings/word", "generator_embeddings/word", "embedding_delta", "generator/bias",
    "discriminator/bias",
)  # fmt: skip


def warm_start(
    config: PretrainConfig, tokenizer: Tokenizer, fresh: dict[str, Any], source: Model
) -> dict[str, Any]:
    """Parameters of the source, fitted to a run.

    What the source lacks (a generator, a head) stays fresh, which is said. Rows of the
    vocabulary are kept for pieces that both have; a new piece starts as the mean of the old
    pieces that spell it. Positions beyond the old ones repeat them from the start.

    Args:
      config: of the run, its vocabulary size resolved.
      tokenizer: of the run.
      fresh: the run's fresh parameters, on the host.
      source: the model to start from.

    Raises:
      UsageError: the two differ in more than vocabulary and length.
    """
    if config.model.architecture != source.config.model.architecture:
        raise UsageError(
            f"init.from holds a model of architecture {source.config.model.architecture!r}, the "
            f"run's is {config.model.architecture!r}"
        )
    electra = config.electra
    old = flatten(unroll(source.config.electra, source.params))
    new = flatten(unroll(electra, fresh))
    old = _change_head(old, new, config.electra.head, source.config.electra.head)
    if tokenizer.identity != source.tokenizer.identity:
        old = change_vocabulary(old, source.tokenizer, tokenizer)
    started, missing = {}, []
    for path, array in new.items():
        # A generator's own embeddings start from shared ones.
        twin = path.replace("generator_embeddings/", "embeddings/")
        origin = path if path in old else twin
        if origin in old:
            started[path] = _fit(path, np.asarray(old[origin]), np.asarray(array))
        else:
            started[path] = array
            missing.append(path)
    if missing:
        parts = sorted({"/".join(path.split("/")[:2]) for path in missing})
        log.info("%-11s fresh, as init.from has none: %s", "parameters", ", ".join(parts))
    return roll(electra, unflatten(started))


def _change_head(
    old: dict[str, Any], new: dict[str, Any], head: str, old_head: str
) -> dict[str, Any]:
    """Flat parameters without a head of another kind.

    Of a masked language model, which has no generator, a copy becomes the generator where
    the run's has its shape: the second stage of two-stage training (the paper, section 3.3).
    """
    if head == old_head:
        return old
    kept = {
        path: value
        for path, value in old.items()
        if not path.startswith("discriminator/") or path.startswith("discriminator/encoder/")
    }
    if old_head == "masked_lm":
        copy = {
            path.replace("discriminator/", "generator/"): value
            for path, value in old.items()
            if path.startswith("discriminator/")
        }
        if all(path in new and np.shape(new[path]) == np.shape(x) for path, x in copy.items()):
            kept = {**copy, **kept}
    return kept


def _fit(path: str, old: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """An old array in the fresh one's shape."""
    if old.shape == fresh.shape:
        return old
    if old.shape[1:] == fresh.shape[1:]:
        if path.endswith("/position"):
            return np.resize(old, fresh.shape)
        if path in BY_PIECE:
            rows = min(len(old), len(fresh))
            return np.concatenate([old[:rows], fresh[rows:]])
    raise UsageError(
        f"init.from has {path} of shape {old.shape}, the run needs {fresh.shape}: give the run "
        "the same model.* and generator.* fields"
    )


def change_vocabulary(params: dict[str, Any], old: Tokenizer, new: Tokenizer) -> dict[str, Any]:
    """Flat parameters with the rows of another vocabulary (see `warm_start`)."""
    ids = {piece: id for id, piece in enumerate(old.pieces(range(old.vocab_size)))}
    sources = []
    for id, piece in enumerate(new.pieces(range(new.vocab_size))):
        known = [ids[piece]] if piece in ids else old.encode([new.decode([id])])[0]
        sources.append(known or [old.unk_id])
    kept = sum(piece in ids for piece in new.pieces(range(new.vocab_size)))
    log.info(
        "%-11s %s of %s pieces kept, the others start from their old pieces",
        "vocabulary", f"{kept:,}", f"{new.vocab_size:,}",
    )  # fmt: skip
    changed = dict(params)
    for path, array in params.items():
        if path in BY_PIECE:
            array = np.asarray(array)
            changed[path] = np.stack([array[rows].mean(axis=0) for rows in sources])
    return changed
