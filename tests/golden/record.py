"""Records what the transformers library computes, for tests that run without it.

    python tests/golden/record.py        with PyTorch and transformers; writes *.npz here

Weights are not stored: `fill` makes them again from their names. The joint loss and its
gradient are written out from the definition (the paper, section 3).
"""

import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SENTENCES_IDS = (
    # "the chef cooked the meal ." and "a good encoder reads every word of it twice ." in the
    # released vocabulary; the first row is padded.
    ([101, 1996, 10026, 12984, 1996, 7954, 1012, 102], 5),
    ([101, 1037, 2204, 4372, 16044, 2099, 9631, 2296, 2773, 1997, 2009, 3807, 1012], 6),
)
ELECTRA = {"model_type": "electra", "vocab_size": 30522, "max_position_embeddings": 512}
MODERN = {"model_type": "modernbert", "vocab_size": 30522, "max_position_embeddings": 512}
CONFIGS = {
    "small": ELECTRA | {
        "hidden_size": 256, "embedding_size": 128, "num_hidden_layers": 12,
        "num_attention_heads": 4, "intermediate_size": 1024,
    },
    "base": ELECTRA | {  # shrunk: no projection, fewer layers
        "hidden_size": 96, "embedding_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 6, "intermediate_size": 384,
    },
    "modern": MODERN | {
        "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
        "intermediate_size": 96, "local_attention": 6, "pad_token_id": 0,
        "layer_types": ["full_attention" if i % 3 == 0 else "sliding_attention" for i in range(5)],
    },
}  # fmt: skip
JOINT = ELECTRA | {
    "vocab_size": 60, "max_position_embeddings": 16, "hidden_size": 32, "embedding_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
JOINT_GENERATOR = JOINT | {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 16}
COLUMNS = 200  # of the masked-LM logits are stored


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor's values from its name: norms near 1, biases small, all different."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    scale = 0.02 if "embeddings" in name or "bias" in name else 0.08
    values = rng.normal(0.0, scale, shape)
    if "norm" in name.lower() and name.endswith("weight"):
        values += 1.0
    return values.astype(np.float32)


def sentences() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, attention mask and token types of two rows, one of them padded."""
    length = max(len(ids) for ids, _ in SENTENCES_IDS)
    ids, types = np.zeros((2, length), np.int64), np.zeros((2, length), np.int64)
    for row, (tokens, second) in enumerate(SENTENCES_IDS):
        ids[row, : len(tokens)] = tokens
        types[row, second : len(tokens)] = 1
    return ids, (ids != 0).astype(np.int64), types


def joint_batch() -> dict[str, np.ndarray]:
    """Rows with their masks and samples, fixed."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 60, (3, 10))
    tokens[0, 8:] = 0
    positions = np.array([[1, 4], [2, 7], [3, 5]])
    masked = tokens.copy()
    np.put_along_axis(masked, positions, 4, axis=1)
    weights = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]], np.float32)
    masked[2, 5] = tokens[2, 5]  # a position that does not count is not masked
    samples = rng.integers(5, 60, (3, 2))
    samples[0, 0] = tokens[0, 1]  # equal to the original: not replaced
    return {
        "tokens": tokens, "masked_tokens": masked, "positions": positions,
        "weights": weights, "samples": samples, "types": (np.arange(10) > 5) * (tokens > 0),
    }  # fmt: skip


def build(config: dict, network: str):
    """A transformers model with the weights of `fill`."""
    import torch
    import transformers

    fields = dict(config)
    electra = fields.pop("model_type") == "electra"
    classes = {
        (True, "discriminator"): "ElectraForPreTraining",
        (True, "generator"): "ElectraForMaskedLM",
        (False, "discriminator"): "ModernBertForTokenClassification",
        (False, "generator"): "ModernBertForMaskedLM",
    }
    kind = transformers.ElectraConfig if electra else transformers.ModernBertConfig
    made = kind(**fields, attn_implementation="eager")
    model = getattr(transformers, classes[electra, network])(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(fill(name, tuple(parameter.shape))))
    return model


def forward(config: dict) -> dict[str, np.ndarray]:
    """Hidden states and logits of both networks on the sentences, and all tensors' shapes."""
    import torch

    ids, mask, types = (torch.from_numpy(x) for x in sentences())
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config["model_type"] == "electra":
        inputs["token_type_ids"] = types
    out = {}
    for network in ("discriminator", "generator"):
        model = build(config, network)
        with torch.no_grad():
            logits = model(**inputs).logits
            hidden = model.base_model(**inputs).last_hidden_state
        if network == "generator":
            out["masked_lm_normaliser"] = logits.logsumexp(-1).numpy()
            logits = logits[..., :COLUMNS]
        elif logits.dim() == 3:  # two labels: the logit of the second
            logits = logits[..., 1] - logits[..., 0]
        out |= {f"{network}_logits": logits.numpy(), f"{network}_hidden": hidden.numpy()}
        for name, tensor in model.state_dict().items():
            out[f"{network}:{name}"] = np.array(tensor.shape)
    return out


def joint() -> dict[str, np.ndarray]:
    """The joint loss and its gradients, from the definition."""
    import torch
    from torch.nn import functional

    batch = {name: torch.from_numpy(np.asarray(x)) for name, x in joint_batch().items()}
    generator, discriminator = build(JOINT_GENERATOR, "generator"), build(JOINT, "discriminator")
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.tie_weights()
    mask = (batch["tokens"] != 0).long()
    common = {"attention_mask": mask, "token_type_ids": batch["types"].long()}
    logits = generator(input_ids=batch["masked_tokens"], **common).logits
    chosen = logits.gather(1, batch["positions"][..., None].expand(-1, -1, logits.shape[-1]))
    targets = batch["tokens"].gather(1, batch["positions"])
    each = functional.cross_entropy(chosen.transpose(1, 2), targets, reduction="none")
    generator_loss = (each * batch["weights"]).sum() / batch["weights"].sum()
    corrupted = batch["tokens"].clone()
    for row, column in np.argwhere(batch["weights"].numpy() > 0):
        corrupted[row, batch["positions"][row, column]] = batch["samples"][row, column]
    replaced = (corrupted != batch["tokens"]).float()
    detected = discriminator(input_ids=corrupted, **common).logits
    each = functional.binary_cross_entropy_with_logits(detected, replaced, reduction="none")
    discriminator_loss = (each * mask).sum() / mask.sum()
    (generator_loss + 50.0 * discriminator_loss).backward()
    out = {"generator_loss": generator_loss.item(), "discriminator_loss": discriminator_loss.item()}
    for network, model in (("discriminator", discriminator), ("generator", generator)):
        for name, parameter in model.named_parameters():
            out[f"{network}:{name}"] = parameter.grad.numpy()
    return out


def main() -> None:
    for name, config in CONFIGS.items():
        np.savez_compressed(FOLDER / f"{name}.npz", **forward(config))
    np.savez_compressed(FOLDER / "joint.npz", **joint())


if __name__ == "__main__":
    main()
