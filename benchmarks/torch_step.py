"""ELECTRA's training step in transformers + PyTorch, for comparison.

Reads a pretraining config as JSON from standard input and prints tokens a second and
memory as JSON. Same shapes, masks of the same number, bfloat16 by autocast, AdamW.
"""

import json
import statistics
import sys
import time

import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

STEPS, WARM_UP = 20, 3
CLS, MASK = 101, 103


def build(model: dict, generator: dict, device: str):
    """Generator and discriminator with shared embeddings."""

    def config(width: float) -> ElectraConfig:
        return ElectraConfig(
            vocab_size=model["vocab_size"],
            embedding_size=model["embedding"],
            hidden_size=round(model["hidden"] * width),
            intermediate_size=round(model["intermediate"] * width),
            num_attention_heads=max(1, round(model["heads"] * width)),
            num_hidden_layers=model["layers"],
            max_position_embeddings=model["max_positions"],
        )

    masked_lm = ElectraForMaskedLM(config(generator["width"]))
    detector = ElectraForPreTraining(config(1.0))
    masked_lm.electra.embeddings = detector.electra.embeddings
    masked_lm.tie_weights()
    return masked_lm.to(device).train(), detector.to(device).train()


def main() -> None:
    config = json.load(sys.stdin)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, length = config["train"]["batch_size"], config["data"]["length"]
    masked = int((config["objective"]["mask_rate"] + 0.005) * length)
    masked_lm, detector = build(config["model"], config["generator"], device)
    parameters = list({*masked_lm.parameters(), *detector.parameters()})
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-4, eps=1e-6, weight_decay=0.01, fused=device == "cuda"
    )
    tokens = torch.randint(1000, config["model"]["vocab_size"], (rows, length), device=device)
    head = torch.nn.Sequential(masked_lm.generator_predictions, masked_lm.generator_lm_head)

    def step() -> None:
        positions = torch.rand(rows, length, device=device).topk(masked, dim=1).indices
        masked_tokens = tokens.scatter(1, positions, MASK)
        targets = tokens.gather(1, positions)
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = masked_lm.electra(masked_tokens).last_hidden_state
            chosen = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            logits = head(chosen).float()
            noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)))
            samples = (logits.detach() + noise).argmax(-1)
            corrupted = tokens.scatter(1, positions, samples)
            detected = detector(corrupted).logits.float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss = loss + 50 * torch.nn.functional.binary_cross_entropy_with_logits(
            detected, (corrupted != tokens).float()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    seconds = []
    for index in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step()
        if index >= WARM_UP:
            seconds.append(time.perf_counter() - start)
    result = {
        "tokens_per_second": round(rows * length / statistics.median(seconds)),
        "step_ms": 1e3 * statistics.median(seconds),
    }
    if device == "cuda":
        result["gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result))


if __name__ == "__main__":
    main()
