"""Names of all parameters in other formats: one table.

A network is named apart from the other: `embeddings`, `encoder` and its head, as
`split_networks` gives them. Paths in it are joined by "/".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from electra_jax.errors import UsageError
from electra_jax.models.encoder import ModelConfig


class Name(NamedTuple):
    """One tensor elsewhere, and the arrays of ours that it holds."""

    ours: tuple[str, ...]  # several lie one after another along the outputs
    theirs: str
    kind: str = "plain"  # kernel: transposed; detector: a second, zero row is put before ours


def _dense(ours: str, theirs: str, bias: bool = True, kind: str = "kernel") -> list[Name]:
    names = [Name((f"{ours}/kernel",), f"{theirs}.weight", kind)]
    if bias:
        bias_kind = "plain" if kind == "kernel" else kind
        names.append(Name((f"{ours}/bias",), f"{theirs}.bias", bias_kind))
    return names


def _norm(ours: str, theirs: str, bias: bool = True) -> list[Name]:
    names = [Name((f"{ours}/scale",), f"{theirs}.weight")]
    return [*names, Name((f"{ours}/bias",), f"{theirs}.bias")] if bias else names


def published_body(config: ModelConfig, prefix: str = "electra.") -> list[Name]:
    """Embeddings and encoder of Hugging Face's ElectraModel, and with `bert.` BertModel."""
    names = [
        Name((f"embeddings/{ours}",), f"{prefix}embeddings.{theirs}_embeddings.weight")
        for ours, theirs in (("word", "word"), ("position", "position"), ("type", "token_type"))
    ]
    names += _norm("embeddings/norm", f"{prefix}embeddings.LayerNorm")
    if config.embedding != config.hidden:
        names += _dense("encoder/embeddings_project", f"{prefix}embeddings_project")
    for layer in range(config.layers):
        ours, theirs = f"encoder/layer_{layer}", f"{prefix}encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            names += _dense(f"{ours}/{part}", f"{theirs}.attention.self.{part}")
        names += _dense(f"{ours}/output", f"{theirs}.attention.output.dense")
        names += _norm(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
        names += _dense(f"{ours}/wide", f"{theirs}.intermediate.dense")
        names += _dense(f"{ours}/narrow", f"{theirs}.output.dense")
        names += _norm(f"{ours}/feedforward_norm", f"{theirs}.output.LayerNorm")
    return names


def modern_body(config: ModelConfig, prefix: str = "model.") -> list[Name]:
    """Embeddings and encoder of Hugging Face's ModernBertModel."""
    names = [Name(("embeddings/word",), f"{prefix}embeddings.tok_embeddings.weight")]
    names += _norm("embeddings/norm", f"{prefix}embeddings.norm", bias=False)
    for layer in range(config.layers):
        ours, theirs = f"encoder/layer_{layer}", f"{prefix}layers.{layer}"
        if layer:
            names += _norm(f"{ours}/attention_norm", f"{theirs}.attn_norm", bias=False)
        attention = tuple(f"{ours}/{part}/kernel" for part in ("query", "key", "value"))
        names.append(Name(attention, f"{theirs}.attn.Wqkv.weight", "kernel"))
        names += _dense(f"{ours}/output", f"{theirs}.attn.Wo", bias=False)
        names += _norm(f"{ours}/feedforward_norm", f"{theirs}.mlp_norm", bias=False)
        names += _dense(f"{ours}/wide", f"{theirs}.mlp.Wi", bias=False)
        names += _dense(f"{ours}/narrow", f"{theirs}.mlp.Wo", bias=False)
    return [*names, *_norm("encoder/final_norm", f"{prefix}final_norm", bias=False)]


def head(config: ModelConfig, network: str) -> list[Name]:
    """The head of a network in Hugging Face's names."""
    modern = config.architecture == "modern"
    if network == "encoder":
        return []
    if network != "discriminator":
        theirs, bias = (
            ("head", "decoder.bias")
            if modern
            else ("generator_predictions", "generator_lm_head.bias")
        )
        return [
            *_dense("dense", f"{theirs}.dense", bias=not modern),
            *_norm("norm", f"{theirs}.{'norm' if modern else 'LayerNorm'}", bias=not modern),
            Name(("bias",), bias),
        ]
    if modern:
        return [
            *_dense("dense", "head.dense", bias=False),
            *_norm("norm", "head.norm", bias=False),
            *_dense("classifier", "classifier", kind="detector"),
        ]
    return [
        *_dense("dense", "discriminator_predictions.dense"),
        *_dense("classifier", "discriminator_predictions.dense_prediction"),
    ]


def tied_output(config: ModelConfig) -> str:
    """The output matrix of a masked language model, which is the one of the embeddings."""
    return "decoder.weight" if config.architecture == "modern" else "generator_lm_head.weight"


def task_head(config: ModelConfig, kind: str) -> list[Name]:
    """A task's head, by the end of the name of Hugging Face's class."""
    if kind == "Model":
        return []
    if config.architecture == "modern":
        return [
            *_dense("head/transform/dense", "head.dense", bias=False),
            *_norm("head/transform/norm", "head.norm", bias=False),
            *_dense("head/classifier", "classifier"),
        ]
    dense, last = {
        "ForSequenceClassification": ("classifier.dense", "classifier.out_proj"),
        "ForMultipleChoice": ("sequence_summary.summary", "classifier"),
        "ForTokenClassification": ("", "classifier"),
        "ForQuestionAnswering": ("", "qa_outputs"),
    }[kind]
    first = _dense("head/transform/dense", dense) if dense else []
    return [*first, *_dense("head/classifier", last)]


def body(config: ModelConfig, prefix: str | None = None) -> list[Name]:
    """Embeddings and encoder in Hugging Face's names, by default with the usual prefix."""
    function = modern_body if config.architecture == "modern" else published_body
    return function(config) if prefix is None else function(config, prefix)


def tensorflow1(config: ModelConfig, network: str) -> list[Name]:
    """The official TF1 variables; the generator has no embeddings of its own."""
    root = "electra" if network == "discriminator" else "generator"
    names = []
    for name in [*published_body(config, ""), *head(config, network)]:
        theirs = name.theirs.replace(".", "/").replace("encoder/layer/", "encoder/layer_")
        if theirs.startswith("embeddings/"):
            if network == "generator":
                continue
            theirs = theirs.removesuffix("/weight") if "_embeddings" in theirs else theirs
        theirs = theirs.replace("dense_prediction", "dense_1")
        theirs = theirs.replace("generator_lm_head/bias", "generator_predictions/output_bias")
        if "LayerNorm" in theirs:
            theirs = theirs.replace("/weight", "/gamma").replace("/bias", "/beta")
        theirs = theirs.replace("/weight", "/kernel")
        if "_predictions/" not in theirs:
            theirs = f"{root}/{theirs}"
        # TensorFlow's kernels lie as ours do.
        names.append(Name(name.ours, theirs))
    return names


def write_tensors(names: list[Name], params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our flat parameters as their tensors, float32."""
    tensors = {}
    for name in names:
        arrays = [np.asarray(params[path], np.float32) for path in name.ours]
        if name.kind != "plain":
            arrays = [array.T for array in arrays]
        if name.kind == "detector":
            arrays = [np.zeros_like(arrays[0]), *arrays]
        tensors[name.theirs] = np.ascontiguousarray(np.concatenate(arrays))
    return tensors


def read_tensors(names: list[Name], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their tensors as our flat parameters, float32.

    Raises:
      UsageError: names the first tensor that is missing.
    """
    params = {}
    for name in names:
        if name.theirs not in tensors:
            raise UsageError(f"tensor {name.theirs} is missing")
        tensor = np.asarray(tensors[name.theirs], np.float32)
        if name.kind == "detector":
            # Of two labels, only the difference of their logits matters.
            parts = [tensor[1:2] - tensor[0:1]]
        else:
            parts = np.split(tensor, len(name.ours))
        for path, part in zip(name.ours, parts, strict=True):
            params[path] = np.ascontiguousarray(part if name.kind == "plain" else part.T)
    return params


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as {"a/b/c": leaf}."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat.update(flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def split_networks(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each network's flat parameters, with the embeddings it reads.

    Those that other formats have a place for: a detector, a transformer that generates,
    and a main network that is a masked language model; of one that copies, the encoder.
    """
    own = params.get("generator_embeddings", params["embeddings"])
    main = dict(params["embeddings"])
    if "embedding_delta" in params:
        main["word"] = np.asarray(main["word"]) + np.asarray(params["embedding_delta"])
    networks = {}
    discriminator = params["discriminator"]
    if "classifier" in discriminator:
        networks["discriminator"] = flatten({"embeddings": main, **discriminator})
    elif "copy" in discriminator:
        networks["encoder"] = flatten({"embeddings": main, "encoder": discriminator["encoder"]})
    elif "bias" in discriminator:
        networks["masked_lm"] = flatten({"embeddings": main, **discriminator})
    generator = params.get("generator", {})
    if "dense" in generator and "left" not in generator:
        # Without an encoder of its own it has the discriminator's.
        generator = {"encoder": discriminator["encoder"], **generator}
        networks["generator"] = flatten({"embeddings": own, **generator})
    return networks
