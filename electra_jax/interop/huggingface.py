"""Models to and from the directories that the transformers library reads.

`published` models are its Electra*, `modern` ones its ModernBert*; the modern
discriminator is a ModernBertForTokenClassification with the labels original and replaced,
whose softmax is our sigmoid.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.interop import names
from electra_jax.interop.fast_tokenizer import save_fast_tokenizer
from electra_jax.interop.huggingface_config import (
    CLASSES,
    PREFIXES,
    hugging_face_config,
    model_config,
    require,
)
from electra_jax.interop.sentence_transformers import (
    SentenceVectors,
    read_sentence_vectors,
    write_sentence_vectors,
)
from electra_jax.interop.tensor_checks import check_room, check_shapes, check_tied, check_unread
from electra_jax.interop.tensor_files import read_tensors, write_safetensors
from electra_jax.models.electra import GeneratorConfig, generator_model
from electra_jax.models.encoder import ModelConfig
from electra_jax.system.json_files import DAMAGE, read_object, short_reason

log = logging.getLogger(__name__)

MAIN = ("discriminator", "masked_lm", "encoder")  # the folders that a main network is written to
LABELS = ("original", "replaced")


@dataclasses.dataclass
class HuggingFaceModel:
    """A model that was read: unstacked parameters, some of which may be missing.

    `params` has "embeddings" and "discriminator" (at least its encoder), and "generator"
    where there was one. With `masked_lm` the head of "discriminator" is a masked language
    model's.
    """

    model: ModelConfig
    generator: GeneratorConfig | None
    params: dict[str, Any]
    tokenizer: Tokenizer
    masked_lm: bool = False
    length: int = 0  # tokens of a text at most, if that is known


def write_network(
    folder: str | Path,
    network: str,
    params: Mapping[str, np.ndarray],
    model: ModelConfig,
    tokenizer: Tokenizer,
    length: int = 0,
) -> None:
    """Writes one network as a directory of config, safetensors and fast tokenizer.

    Args:
      folder: is made.
      network: "generator", or one of `MAIN`.
      params: flat, as `names.split_networks` gives them.
      model: the network's own shape.
      tokenizer: of the model.
      length: tokens of a text at most; 0: as many as there are positions.
    """
    prefix = "" if network == "encoder" else None
    table = [*names.body(model, prefix), *names.head(model, network)]
    tensors = names.write_tensors(table, params)
    labels = LABELS if (model.architecture, network) == ("modern", "discriminator") else ()
    opens_with = CLASSES[model.architecture, network]
    config = hugging_face_config(model, opens_with, tokenizer, labels)
    _write(Path(folder), config, tensors, tokenizer)
    if network in MAIN:
        vectors = SentenceVectors(model.pooling, length or model.max_positions)
        write_sentence_vectors(Path(folder), vectors, model.hidden)


def write_task_model(
    folder: str | Path,
    kind: str,
    params: Mapping[str, np.ndarray],
    model: ModelConfig,
    tokenizer: Tokenizer,
    labels: Sequence[str] = (),
    pooling: str = "",
    length: int = 0,
) -> str:
    """Writes a fine-tuned model; returns the class that opens it.

    Args:
      folder: is made.
      kind: the end of that class's name, such as "ForTokenClassification", or "Model".
      params: flat: embeddings, encoder and head.
      model: the encoder's shape.
      labels: of a classifier.
      pooling: of its head, by default the architecture's; the published classes know [CLS] alone.
      length: tokens of a text at most; 0: as many as there are positions.

    Raises:
      UsageError: there is no such class.
    """
    modern = model.architecture == "modern"
    pooling = pooling or model.block.pooling
    if pooling != "cls" and not modern and kind != "Model":
        raise UsageError(
            f"transformers has no Electra class with pooling={pooling}: use task.pooling=cls"
        )
    opens_with = f"{'ModernBert' if modern else 'Electra'}{kind}"
    prefix = "" if kind == "Model" else None
    table = [*names.body(model, prefix), *names.task_head(model, kind)]
    tensors = names.write_tensors(table, params)
    config = hugging_face_config(model, opens_with, tokenizer, labels)
    if modern:
        config["classifier_pooling"] = pooling
    _write(Path(folder), config, tensors, tokenizer)
    if kind == "Model":
        vectors = SentenceVectors(pooling, length or model.max_positions)
        write_sentence_vectors(Path(folder), vectors, model.hidden)
    return opens_with


def _write(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], tokenizer: Tokenizer
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    types = "type_vocab_size" in config
    save_fast_tokenizer(tokenizer, folder, config["max_position_embeddings"], types)


def is_hugging_face(path: str | Path) -> bool:
    """Whether a directory looks like one of ours exported, or of the transformers library."""
    path = Path(path)
    return _holds_model(path) or any(_holds_model(path / network) for network in MAIN)


def _holds_model(folder: Path) -> bool:
    file = folder / "config.json"
    return file.is_file() and "model_type" in read_object(file)


def read_model(
    path: str | Path,
    generator: str | Path | None = None,
    special_tokens: Mapping[str, str] | Sequence[str] = (),
) -> HuggingFaceModel:
    """Reads a discriminator or a masked language model, and a generator if there is one.

    Of any other model of their kind it reads the encoder.

    Args:
      path: a directory with the model, or with one of `MAIN` and perhaps `generator/`.
      generator: the generator's directory, where it lies elsewhere.
      special_tokens: see `load_tokenizer`.

    Raises:
      UsageError: nothing there, another kind of model, missing or misshapen tensors, a
        damaged file, or one that wants code to be run.
    """
    path = Path(path)
    folders = [path, *(path / network for network in MAIN)]
    folder = next(filter(_holds_model, folders), None)
    if folder is None:
        raise UsageError(
            f"no model in {path}: no config.json in it or in its {', '.join(MAIN)} folder"
        )
    if generator is None and folder != path and _holds_model(path / "generator"):
        generator = path / "generator"
    model, network, flat = _read_network(folder, ("discriminator", "masked_lm"))
    masked_lm = network == "masked_lm"
    vectors = read_sentence_vectors(folder)
    model = dataclasses.replace(model, pooling=vectors.pooling)
    tokenizer = load_tokenizer(folder, special_tokens=special_tokens)
    if tokenizer.vocab_size > model.vocab_size:
        raise UsageError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} pieces, its model "
            f"{model.vocab_size}"
        )
    params = _as_network(flat, "discriminator")
    if generator is None:
        return HuggingFaceModel(model, None, params, tokenizer, masked_lm, vectors.length)
    small, _, flat = _read_network(Path(generator), ("generator",))
    config = _generator_config(model, small)
    read = _as_network(flat, "generator")
    embeddings = read.pop("embeddings")
    shared = names.flatten(params["embeddings"])
    if all(
        np.array_equal(value, shared[name]) for name, value in names.flatten(embeddings).items()
    ):
        config = dataclasses.replace(config, share="embeddings")
    else:
        params["generator_embeddings"] = embeddings
    params |= read
    return HuggingFaceModel(model, config, params, tokenizer, masked_lm, vectors.length)


def _read_network(
    folder: Path, networks: Sequence[str]
) -> tuple[ModelConfig, str, dict[str, np.ndarray]]:
    """Shape, which of `networks` it is, and flat parameters; without a head if it is none."""
    try:
        config = read_object(folder / "config.json")
        model = model_config(config)
        check_room(model, filter(Path.is_file, folder.iterdir()))
        tensors = read_tensors(folder)
        prefix = _find_prefix(tensors, PREFIXES[config["model_type"]], model)
        table = names.body(model, prefix)
        network = _find_network(config, model, networks)
        if network:
            if model.architecture == "modern":
                require(config, {"classifier_bias": False, "classifier_activation": "gelu"})
            table += names.head(model, network)
        elif "generator" in networks:
            raise UsageError(f"it is no {CLASSES[model.architecture, 'generator']}")
        flat = names.read_tensors(table, tensors)
        check_shapes(model, flat)
        check_tied(config, model, network, tensors, flat)
        check_unread(tensors, {name.theirs for name in table}, prefix, network)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    except DAMAGE as error:
        raise UsageError(f"{folder}/config.json cannot be read: {short_reason(error)}") from error
    return model, network, flat


def _find_network(config: Mapping[str, Any], model: ModelConfig, networks: Sequence[str]) -> str:
    """Which of the networks has the head that a config.json names, or ""."""
    for network in networks:
        if CLASSES[model.architecture, network] not in (config.get("architectures") or ()):
            continue
        # The modern discriminator's class has taggers, too.
        labels = {str(index): name for index, name in enumerate(LABELS)}
        if (model.architecture, network) == ("modern", "discriminator") and (
            config.get("id2label") != labels
        ):
            log.info("%-11s left out, as its labels are not %s", "head", " and ".join(LABELS))
            continue
        return network
    return ""


def _find_prefix(tensors: Mapping, prefixes: tuple[str, ...], model: ModelConfig) -> str:
    for prefix in prefixes:
        if names.body(model, prefix)[0].theirs in tensors:
            return prefix
    raise UsageError(f"tensor {names.body(model, prefixes[0])[0].theirs} is missing")


def _as_network(flat: Mapping[str, np.ndarray], network: str) -> dict[str, Any]:
    tree = names.unflatten(flat)
    return {"embeddings": tree.pop("embeddings"), network: tree}


def _generator_config(model: ModelConfig, small: ModelConfig) -> GeneratorConfig:
    config = GeneratorConfig(
        width=small.hidden / model.hidden, depth=small.layers / model.layers, share="nothing"
    )
    expected = generator_model(model, config)
    free = ("dropout", "attention_dropout", "local_window", "global_every", "pooling")
    differences = [
        (field.name, getattr(expected, field.name), getattr(small, field.name))
        for field in dataclasses.fields(ModelConfig)
        if field.name not in free
    ]
    # One layer alone does not tell how far others would reach.
    differences += [
        (f"window of layer {layer}", expected.window(layer), small.window(layer))
        for layer in range(small.layers)
    ]
    for name, ours, theirs in differences:
        if ours != theirs:
            raise UsageError(
                f"the generator's {name} is {theirs}, where {ours} goes with this "
                "discriminator; import the discriminator alone"
            )
    return config
