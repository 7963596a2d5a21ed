"""ELECTRA's training step in transformers + PyTorch, in turns (turns.py).

Reads a line of JSON: a pretraining config, the attention ("eager" or "sdpa"), the dtype, and
whether to compile. The same shapes, numbers of masked tokens, samples and AdamW; bfloat16 by
autocast. The published architecture is that of Electra*, the modern one that of ModernBert*.
"""

import json
import sys

import torch
import transformers
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForTokenClassification,
)
from turns import host_memory, take_turns

CLS, MASK = 101, 103


def published(model: dict, width: float, depth: float, attention: str) -> ElectraConfig:
    return ElectraConfig(
        vocab_size=model["vocab_size"],
        embedding_size=model["embedding"],
        hidden_size=round(model["hidden"] * width),
        intermediate_size=round(model["intermediate"] * width),
        num_attention_heads=max(1, round(model["heads"] * width)),
        num_hidden_layers=max(1, round(model["layers"] * depth)),
        max_position_embeddings=model["max_positions"],
        hidden_dropout_prob=model["dropout"],
        attention_probs_dropout_prob=model["attention_dropout"],
        attn_implementation=attention,
    )


def modern(model: dict, width: float, depth: float, attention: str) -> ModernBertConfig:
    window, every = model["local_window"], model["global_every"]
    return ModernBertConfig(
        vocab_size=model["vocab_size"],
        hidden_size=round(model["hidden"] * width),
        intermediate_size=round(model["intermediate"] * width),
        num_attention_heads=max(1, round(model["heads"] * width)),
        num_hidden_layers=max(1, round(model["layers"] * depth)),
        local_attention=2 * window or 128,
        global_attn_every_n_layers=every if window else 1,
        attention_dropout=model["attention_dropout"],
        embedding_dropout=model["dropout"],
        mlp_dropout=model["dropout"],
        num_labels=1,
        pad_token_id=0,
        attn_implementation=attention,
    )


class Networks(torch.nn.Module):
    """Generator and discriminator with shared embeddings; the losses of a batch."""

    def __init__(self, config: dict, attention: str):
        super().__init__()
        model, generator = config["model"], config["generator"]
        self.modern = model["architecture"] == "modern"
        shape = modern if self.modern else published
        small = shape(model, generator["width"], generator["depth"], attention)
        large = shape(model, 1.0, 1.0, attention)
        if self.modern:
            self.masked_lm = ModernBertForMaskedLM(small)
            self.detector = ModernBertForTokenClassification(large)
            self.masked_lm.model.embeddings = self.detector.model.embeddings
            self.head = torch.nn.Sequential(self.masked_lm.head, self.masked_lm.decoder)
        else:
            self.masked_lm = ElectraForMaskedLM(small)
            self.detector = ElectraForPreTraining(large)
            self.masked_lm.electra.embeddings = self.detector.electra.embeddings
            predictions = self.masked_lm.generator_predictions
            self.head = torch.nn.Sequential(predictions, self.masked_lm.generator_lm_head)
        self.masked_lm.tie_weights()
        self.weight = config["objective"]["discriminator_weight"]

    def forward(self, tokens: torch.Tensor, masked: int) -> torch.Tensor:
        positions = torch.rand(tokens.shape, device=tokens.device).topk(masked, dim=1).indices
        targets = tokens.gather(1, positions)
        encoder = self.masked_lm.model if self.modern else self.masked_lm.electra
        hidden = encoder(tokens.scatter(1, positions, MASK)).last_hidden_state
        # Only masked positions reach the head, as in electra-jax.
        chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        logits = self.head(chosen).float()
        noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)))
        samples = (logits.detach() + noise).argmax(-1)
        corrupted = tokens.scatter(1, positions, samples)
        detected = self.detector(corrupted).logits.float().reshape(tokens.shape)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        labels = (corrupted != tokens).float()
        binary = torch.nn.functional.binary_cross_entropy_with_logits(detected, labels)
        return loss + self.weight * binary


def main() -> None:
    content = json.loads(sys.stdin.readline())
    config = content["config"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, length = config["train"]["batch_size"], config["data"]["length"]
    masked = int((config["objective"]["mask_rate"] + 0.005) * length)
    networks = Networks(config, content["attention"]).to(device).train()
    parameters = list(networks.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-6, weight_decay=0.01, fused=True)
    tokens = torch.randint(1000, config["model"]["vocab_size"], (rows, length), device=device)
    loss_of = torch.compile(networks) if content["compile"] else networks

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=content["dtype"] == "bfloat16"):
            loss = loss_of(tokens, masked)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    step()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    take_turns(
        step,
        {"version": versions},
        host_memory if device == "cpu" else torch.cuda.max_memory_allocated,
    )


if __name__ == "__main__":
    main()
