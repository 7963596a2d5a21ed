"""Starts a run from another model: with another vocabulary, longer rows, or missing parts."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.config import PretrainConfig
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import PretrainedModel, read_shape
from electra_jax.interop.names import flatten, unflatten
from electra_jax.models.electra import (
    GeneratorConfig,
    generator_model,
    stack_params,
    unstack_params,
)
from electra_jax.models.encoder import ModelConfig
from electra_jax.run_directory import CONFIG_FILE, read_config

log = logging.getLogger(__name__)

# The arrays with a row for each piece of the vocabulary.
BY_PIECE = (
    "embeddings/word", "generator_embeddings/word", "embedding_delta", "generator/bias",
    "discriminator/bias",
)  # fmt: skip
# What a run takes from the model that it starts from.
MODEL_SHAPE = (
    "architecture", "layers", "hidden", "heads", "intermediate", "embedding", "max_positions",
    "token_types", "local_window", "global_every", "pooling", "dtype",
)  # fmt: skip
GENERATOR_SHAPE = ("width", "depth")
GENERATOR_ENCODERS = ("generator/encoder/", "generator/left/", "generator/right/")


def adopt_shape(fields: Any, overrides: Sequence[str], workdir: str | Path) -> None:
    """Gives a config's fields the shape of the model that `init.from` names.

    Only what overrides say of the shape stays. A run that has begun keeps the shape it began with,
    and does not need that model any more.

    Args:
      fields: a ConfigDict of `load_config`, which is changed.
      overrides: those it was made with.
      workdir: of the run.

    Raises:
      UsageError: there is no such model, or its config cannot be read.
    """
    source = fields.init["from"]
    if not source:
        return
    generator: GeneratorConfig | None
    begun = read_config(workdir) if (Path(workdir) / CONFIG_FILE).is_file() else None
    if begun is not None and begun.init.from_ == source:
        model, generator = begun.model, begun.generator
    else:
        model, generator = read_shape(source)
    typed = {override.partition("=")[0] for override in overrides}
    adopted = []
    for section, shape, names in (
        ("model", model, MODEL_SHAPE), ("generator", generator, GENERATOR_SHAPE),
    ):  # fmt: skip
        for name in names if shape else ():
            value, field = getattr(shape, name), f"{section}.{name}"
            if field not in typed and fields[section][name] != value:
                fields[section][name] = value
                adopted.append(f"{field}={value}")
    if adopted:
        log.info("%-11s as in init.from: %s", "shape", ", ".join(adopted))


def warm_start(
    config: PretrainConfig, tokenizer: Tokenizer, fresh: dict[str, Any], source: PretrainedModel
) -> dict[str, Any]:
    """Parameters of the source, fitted to a run.

    What the source lacks (a generator, a head) stays fresh, and what the run has no place
    for is left out; both are logged. Rows of the vocabulary are kept for pieces that both have;
    a new piece starts as the mean of the old pieces that spell it. Positions beyond the old
    ones repeat them from the start.

    Args:
      config: of the run, its vocabulary size resolved.
      tokenizer: of the run.
      fresh: the run's fresh parameters, on the host.
      source: the model to start from.

    Raises:
      UsageError: the two differ in more than vocabulary and length, or the run freezes what
        the source lacks.
    """
    if config.model.architecture != source.config.model.architecture:
        raise UsageError(
            f"init.from holds a model of architecture {source.config.model.architecture!r}, the "
            f"run's is {config.model.architecture!r}"
        )
    _check_attention("model", source.config.model, config.model)
    electra = config.electra
    old = flatten(unstack_params(source.config.electra, source.params))
    new = flatten(unstack_params(electra, fresh))
    if any(path in new and path.startswith(GENERATOR_ENCODERS) for path in old):
        _check_attention(
            "generator",
            generator_model(source.config.model, source.config.generator),
            generator_model(config.model, config.generator),
        )
    old = _change_head(old, new, config.electra.head, source.config.electra.head)
    old = _change_sharing(old, new)
    if tokenizer.identity != source.tokenizer.identity:
        old = change_vocabulary(old, source.tokenizer, tokenizer)
    started, missing, unused = _fill(new, old)
    _log_parts(missing, "fresh, as init.from has none")
    _log_parts(unused, "left out of init.from, as the run has no place for them")
    # The optimizer knows stacked layers by the stack's name.
    is_fresh = flatten(stack_params(electra, unflatten({path: path in missing for path in new})))
    _check_frozen(config.optimizer.frozen, [path for path, x in is_fresh.items() if np.any(x)])
    return stack_params(electra, unflatten(started))


def _fill(new: dict[str, Any], old: dict[str, Any]) -> tuple[dict[str, Any], set[str], set[str]]:
    """Arrays of `new` with the values of `old`; the paths that stay fresh, and the unused ones."""
    started, missing, unused = {}, set(), set(old)
    for path, array in new.items():
        # A generator's own embeddings start from shared ones.
        twin = path.replace("generator_embeddings/", "embeddings/")
        origin = path if path in old else twin
        if origin in old:
            started[path] = _fit(path, np.asarray(old[origin]), np.asarray(array))
            unused.discard(origin)
        else:
            started[path] = array
            missing.add(path)
    return started, missing, unused


def _log_parts(paths: set[str], text: str) -> None:
    if paths:
        parts = sorted({"/".join(path.split("/")[:2]) for path in paths})
        log.info("%-11s %s: %s", "parameters", text, ", ".join(parts))


def _check_frozen(frozen: str, fresh: Sequence[str]) -> None:
    """Refuses parameters that would stay random for good."""
    for path in fresh:
        if frozen and re.search(frozen, path):
            raise UsageError(
                f"optimizer.frozen={frozen!r} would keep {path} random, as init.from has none that "
                "fits: start from a model of the same generator, or freeze less"
            )


def _check_attention(section: str, old: ModelConfig, new: ModelConfig) -> None:
    """Refuses what changes no array's shape and yet makes another model."""
    differences = [("a number of heads", old.heads, new.heads)]
    differences += [
        (f"an attention window in layer {layer}", old.window(layer) or 0, new.window(layer) or 0)
        for layer in range(min(old.layers, new.layers))
    ]
    for name, before, now in differences:
        if before != now:
            raise UsageError(
                f"the {section} of init.from has {name} of {before}, the run's of {now}: "
                "give the run the same model.* and generator.* fields"
            )


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
        if all(path in new and _same_rows(path, x, new[path]) for path, x in copy.items()):
            kept = {**copy, **kept}
    return kept


def _same_rows(path: str, old: Any, new: Any) -> bool:
    """Whether shapes are equal, but for the size of a vocabulary."""
    start = 1 if path in BY_PIECE else 0
    return np.ndim(old) == np.ndim(new) and np.shape(old)[start:] == np.shape(new)[start:]


def _change_sharing(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Flat parameters with the discriminator's embeddings whole where the run has no delta."""
    if "embedding_delta" not in old or "embedding_delta" in new:
        return old
    changed = dict(old)
    word = np.asarray(old["embeddings/word"])
    if "generator_embeddings/word" in new:
        changed["generator_embeddings/word"] = word
    changed["embeddings/word"] = word + np.asarray(changed.pop("embedding_delta"))
    return changed


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
    continues = new.continuation()
    sources = []
    for id, piece in enumerate(new.pieces(range(new.vocab_size))):
        known = [ids[piece]] if piece in ids else _spell(new.decode([id]), continues[id], old, ids)
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


def _spell(text: str, continues: bool, old: Tokenizer, ids: Mapping[str, int]) -> list[int]:
    """The old pieces that spell a new one; those within words if it `continues` one."""
    if not continues:
        return old.encode([text])[0]
    spelt = old.encode([text.removeprefix("##")])[0]
    pieces = old.pieces(spelt)
    return [ids.get(f"##{piece}", id) for id, piece in zip(spelt, pieces, strict=True)]
