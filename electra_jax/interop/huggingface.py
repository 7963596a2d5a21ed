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
import safetensors.numpy

from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.interop import names
from electra_jax.interop.fast_tokenizer import save_fast_tokenizer
from electra_jax.interop.tensor_files import read_json, read_tensors
from electra_jax.models.electra import GeneratorConfig, generator_model
from electra_jax.models.encoder import GLOBAL_THETA, LOCAL_THETA, ModelConfig

log = logging.getLogger(__name__)

CLASSES = {
    ("published", "discriminator"): "ElectraForPreTraining",
    ("published", "generator"): "ElectraForMaskedLM",
    ("modern", "discriminator"): "ModernBertForTokenClassification",
    ("modern", "generator"): "ModernBertForMaskedLM",
    ("published", "masked_lm"): "ElectraForMaskedLM",
    ("modern", "masked_lm"): "ModernBertForMaskedLM",
    ("published", "encoder"): "ElectraModel",
    ("modern", "encoder"): "ModernBertModel",
}
MAIN = ("discriminator", "masked_lm", "encoder")  # the folders that a main network is written to
# Where embeddings and encoder may lie, by their model type.
PREFIXES = {"electra": ("electra.", ""), "bert": ("bert.", ""), "modernbert": ("model.", "")}
LABELS = ("original", "replaced")
# The first parts of the names of a network's head.
HEADS = {
    "discriminator": {"discriminator_predictions", "head", "classifier"},
    "masked_lm": {"generator_predictions", "generator_lm_head", "head", "decoder"},
    "generator": {"generator_predictions", "generator_lm_head", "head", "decoder"},
}


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


def hugging_face_config(
    model: ModelConfig, opens_with: str, tokenizer: Tokenizer, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """config.json of one network.

    Args:
      model: the network's own shape.
      opens_with: the class that opens it.
      tokenizer: its tokenizer.
      labels: of a classifier.
    """
    common = {
        "architectures": [opens_with],
        "dtype": "float32",
        "torch_dtype": "float32",  # its name before version 4.56 of transformers
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": model.max_positions,
        "initializer_range": 0.02,
        "pad_token_id": tokenizer.pad_id,
        "tie_word_embeddings": True,
    }
    if labels:
        common["id2label"] = {str(index): name for index, name in enumerate(labels)}
        common["label2id"] = {name: index for index, name in enumerate(labels)}
    if model.architecture == "published":
        return {"model_type": "electra", **common, **_electra_fields(model)}
    return {"model_type": "modernbert", **common, **_modernbert_fields(model, tokenizer)}


def _electra_fields(model: ModelConfig) -> dict[str, Any]:
    return {
        "embedding_size": model.embedding,
        "hidden_act": "gelu",
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "type_vocab_size": model.token_types,
        "layer_norm_eps": model.block.norm_epsilon,
    }


def _modernbert_fields(model: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    windows = [model.window(layer) for layer in range(model.layers)]
    return {
        "hidden_activation": "gelu",
        "norm_eps": model.block.norm_epsilon,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "classifier_bias": False,
        "classifier_activation": "gelu",
        "classifier_pooling": model.block.pooling,
        "embedding_dropout": model.dropout,
        "mlp_dropout": 0.0,
        "attention_dropout": model.attention_dropout,
        "layer_types": [
            "full_attention" if window is None else "sliding_attention" for window in windows
        ],
        "local_attention": 2 * model.local_window or 128,
        # What versions of transformers before 5 read instead of layer_types and rope_parameters.
        "global_attn_every_n_layers": model.global_every if model.local_window else 1,
        "global_rope_theta": GLOBAL_THETA,
        "local_rope_theta": LOCAL_THETA,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": GLOBAL_THETA},
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_THETA},
        },
        "bos_token_id": tokenizer.cls_id,
        "cls_token_id": tokenizer.cls_id,
        "eos_token_id": tokenizer.sep_id,
        "sep_token_id": tokenizer.sep_id,
    }


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """The shape that a config.json describes.

    Raises:
      UsageError: a model of another kind, or with a setting this encoder has not.
    """
    kind = config.get("model_type")
    if kind not in PREFIXES:
        raise UsageError(f"a model of type {kind!r}; electra, modernbert and bert can be read")
    shape = {
        "vocab_size": config["vocab_size"],
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "intermediate": config["intermediate_size"],
        "max_positions": config["max_position_embeddings"],
    }
    if kind == "modernbert":
        needed = {"hidden_activation": "gelu", "norm_bias": False, "attention_bias": False,
                  "mlp_bias": False, "norm_eps": 1e-5}  # fmt: skip
        _require(config, needed)
        window, every = _local_layers(config)
        return ModelConfig(
            architecture="modern",
            embedding=config["hidden_size"],
            dropout=config.get("embedding_dropout", 0.0),
            attention_dropout=config.get("attention_dropout", 0.0),
            local_window=window,
            global_every=every,
            **shape,
        )
    needed = {"hidden_act": "gelu", "position_embedding_type": "absolute", "layer_norm_eps": 1e-12}
    _require(config, needed)
    return ModelConfig(
        architecture="published",
        embedding=config["embedding_size"] if kind == "electra" else config["hidden_size"],
        token_types=config.get("type_vocab_size", 2),
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        **shape,
    )


def _require(config: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    for field, value in needed.items():
        if config.get(field, value) != value:
            raise UsageError(f"its {field} is {config[field]!r}; only {value!r} can be read")


def _local_layers(config: Mapping[str, Any]) -> tuple[int, int]:
    """(reach of local layers, every which layer is global) of a ModernBERT config."""
    kinds = config.get("layer_types")
    if kinds is None:
        kinds = [
            "sliding_attention" if layer % config.get("global_attn_every_n_layers", 3) else
            "full_attention" for layer in range(config["num_hidden_layers"])
        ]  # fmt: skip
    ropes = config.get("rope_parameters") or {}
    # Before version 5 of transformers the angles were fields of their own.
    for kind, field, theta in (
        ("full_attention", "global_rope_theta", GLOBAL_THETA),
        ("sliding_attention", "local_rope_theta", LOCAL_THETA),
    ):
        if kind not in kinds:
            continue
        rope = ropes.get(kind) or {}
        if rope.get("rope_theta", config.get(field, theta)) != theta:
            raise UsageError(f"its rope_theta for {kind} is not {theta:g}")
        if rope.get("rope_type", "default") != "default":
            raise UsageError(f"its rope_type for {kind} is {rope['rope_type']!r}, not 'default'")
    if "sliding_attention" not in kinds:
        return 0, ModelConfig.global_every
    for every in range(2, len(kinds) + 1):
        if all((kind == "full_attention") == (i % every == 0) for i, kind in enumerate(kinds)):
            return config.get("local_attention", 128) // 2, every
    raise UsageError("its layer_types are not every n-th layer global, the others local")


def write_network(
    folder: str | Path,
    network: str,
    params: Mapping[str, np.ndarray],
    model: ModelConfig,
    tokenizer: Tokenizer,
) -> None:
    """Writes one network as a directory of config, safetensors and fast tokenizer.

    Args:
      folder: is made.
      network: "generator", or one of `MAIN`.
      params: flat, as `names.split_networks` gives them.
      model: the network's own shape.
    """
    prefix = "" if network == "encoder" else None
    table = [*names.body(model, prefix), *names.head(model, network)]
    tensors = names.write_tensors(table, params)
    labels = LABELS if (model.architecture, network) == ("modern", "discriminator") else ()
    opens_with = CLASSES[model.architecture, network]
    config = hugging_face_config(model, opens_with, tokenizer, labels)
    _write(Path(folder), config, tensors, tokenizer)


def write_task_model(
    folder: str | Path,
    kind: str,
    params: Mapping[str, np.ndarray],
    model: ModelConfig,
    tokenizer: Tokenizer,
    labels: Sequence[str] = (),
    pooling: str = "",
) -> str:
    """Writes a fine-tuned model; returns the class that opens it.

    Args:
      folder: is made.
      kind: the end of that class's name, such as "ForTokenClassification", or "Model".
      params: flat: embeddings, encoder and head.
      model: the encoder's shape.
      labels: of a classifier.
      pooling: of its head, by default the architecture's; the published classes know [CLS] alone.

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
    return opens_with


def _write(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], tokenizer: Tokenizer
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file, which hides its files from everyone but their owner.
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    types = "type_vocab_size" in config
    save_fast_tokenizer(tokenizer, folder, config["max_position_embeddings"], types)


def is_hugging_face(path: str | Path) -> bool:
    """Whether a directory looks like one of ours exported, or of the transformers library."""
    path = Path(path)
    return _holds_model(path) or any(_holds_model(path / network) for network in MAIN)


def _holds_model(folder: Path) -> bool:
    file = folder / "config.json"
    return file.is_file() and "model_type" in read_json(file)


def read_model(path: str | Path, generator: str | Path | None = None) -> HuggingFaceModel:
    """Reads a discriminator or a masked language model, and a generator if there is one.

    Of any other model of their kind it reads the encoder.

    Args:
      path: a directory with the model, or with one of `MAIN` and perhaps `generator/`.
      generator: the generator's directory, where it lies elsewhere.

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
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > model.vocab_size:
        raise UsageError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} pieces, its model "
            f"{model.vocab_size}"
        )
    params = _as_network(flat, "discriminator")
    if generator is None:
        return HuggingFaceModel(model, None, params, tokenizer, masked_lm)
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
    return HuggingFaceModel(model, config, {**params, **read}, tokenizer, masked_lm)


def _read_network(
    folder: Path, networks: Sequence[str]
) -> tuple[ModelConfig, str, dict[str, np.ndarray]]:
    """Shape, which of `networks` it is, and flat parameters; without a head if it is none."""
    try:
        config = read_json(folder / "config.json")
        model = model_config(config)
        tensors = read_tensors(folder)
        prefix = _find_prefix(tensors, PREFIXES[config["model_type"]], model)
        table = names.body(model, prefix)
        network = _find_network(config, model, networks)
        if network:
            if model.architecture == "modern":
                _require(config, {"classifier_bias": False, "classifier_activation": "gelu"})
            table += names.head(model, network)
        elif "generator" in networks:
            raise UsageError(f"it is no {CLASSES[model.architecture, 'generator']}")
        flat = names.read_tensors(table, tensors)
        _check_shapes(model, flat)
        _check_tied(config, model, network, tensors, flat)
        _check_unread(tensors, {name.theirs for name in table}, prefix, network)
    except UsageError as error:
        raise UsageError(f"{folder}: {error}") from error
    except (KeyError, TypeError) as error:
        raise UsageError(f"{folder}/config.json lacks {error}") from error
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


def _check_tied(
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


def _check_unread(
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


def _find_prefix(tensors: Mapping, prefixes: tuple[str, ...], model: ModelConfig) -> str:
    for prefix in prefixes:
        if names.body(model, prefix)[0].theirs in tensors:
            return prefix
    raise UsageError(f"tensor {names.body(model, prefixes[0])[0].theirs} is missing")


def _check_shapes(model: ModelConfig, flat: Mapping[str, np.ndarray]) -> None:
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


def _as_network(flat: Mapping[str, np.ndarray], network: str) -> dict[str, Any]:
    tree = names.unflatten(flat)
    return {"embeddings": tree.pop("embeddings"), network: tree}


def _generator_config(model: ModelConfig, small: ModelConfig) -> GeneratorConfig:
    config = GeneratorConfig(
        width=small.hidden / model.hidden, depth=small.layers / model.layers, share="nothing"
    )
    expected = generator_model(model, config)
    free = ("dropout", "attention_dropout", "local_window", "global_every")
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
