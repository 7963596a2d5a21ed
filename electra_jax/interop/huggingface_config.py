"""config.json of the transformers library's models: written, and read as a model's shape."""

from collections.abc import Mapping, Sequence
from typing import Any

from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.models.encoder import GLOBAL_THETA, LOCAL_THETA, MOST_LAYERS, ModelConfig

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
# Where embeddings and encoder may lie, by their model type.
PREFIXES = {"electra": ("electra.", ""), "bert": ("bert.", ""), "modernbert": ("model.", "")}


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
        raise UsageError(f"a model of type {kind!r:.40}; electra, modernbert and bert can be read")
    check_layers(config["num_hidden_layers"], config.get("layer_types"))
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
        require(config, needed)
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
    require(config, needed)
    return ModelConfig(
        architecture="published",
        embedding=config["embedding_size"] if kind == "electra" else config["hidden_size"],
        token_types=config.get("type_vocab_size", 2),
        dropout=config.get("hidden_dropout_prob", 0.1),
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        **shape,
    )


def check_layers(layers: Any, kinds: Any) -> None:
    """Refuses what no loop over the layers should begin with.

    Raises:
      UsageError: it is no number of layers, or there are kinds of more or fewer.
    """
    if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
        raise UsageError(f"its num_hidden_layers is {layers!r:.40}, not one of 1 to {MOST_LAYERS}")
    if kinds is not None and len(kinds) != layers:
        raise UsageError(f"it has {layers} layers, and layer_types of {len(kinds)}")


def require(config: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    """Refuses a setting that has another value than the one that this encoder has.

    Raises:
      UsageError: names the setting.
    """
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
