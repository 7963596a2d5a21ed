"""Floating-point operations of the model, counted from its shape.

One multiply-add is two operations; softmax, norms and other element-wise work are not
counted, as is usual for model FLOPs utilisation. Training costs three forward passes.
"""

from electra_jax.models.electra import GeneratorConfig, generator_model
from electra_jax.models.encoder import ModelConfig


def encoder_flops_per_token(config: ModelConfig, length: int) -> float:
    """Forward operations of the encoder per token of a row of `length` tokens."""
    wide = 3 if config.block.gated else 2
    products = 2 * (4 * config.hidden**2 + wide * config.hidden * config.intermediate)
    total = 0.0
    for layer in range(config.layers):
        window = config.window(layer)
        seen = length if window is None else min(length, 2 * window + 1)
        total += products + 4 * seen * config.hidden
    if config.embedding != config.hidden:
        total += 2 * config.embedding * config.hidden
    return total


def masked_lm_head_flops(config: ModelConfig) -> float:
    """Forward operations of the masked-language-model head per masked position."""
    return 2 * (config.hidden * config.embedding + config.embedding * config.vocab_size)


def generator_flops_per_token(
    model: ModelConfig, generator: GeneratorConfig, length: int, predicted: int
) -> dict[str, float]:
    """Forward operations per token of a generator that predicts `predicted` positions of a row."""
    small = generator_model(model, generator)
    encoder = encoder_flops_per_token(small, length)
    head = masked_lm_head_flops(small)
    if generator.kind == "two_tower":
        encoder *= 2
        head += 2 * small.hidden * small.embedding  # reads both towers
    elif generator.kind != "transformer":
        return {}
    return {"generator": encoder, "masked_lm_head": predicted / length * head}


def train_flops_per_token(
    model: ModelConfig,
    generator: GeneratorConfig,
    length: int,
    masked: int,
    head: str = "detector",
    generates_everywhere: bool = False,
) -> dict[str, float]:
    """Training operations per token by part, with `masked` positions in rows of `length`.

    `head` is the main network's (see `Electra`); a generator may predict every position.
    """
    heads = {
        "detector": 2 * (model.hidden**2 + model.hidden),
        "masked_lm": masked / length * masked_lm_head_flops(model),
        "copying_lm": masked_lm_head_flops(model) + 2 * model.hidden,
    }
    forward = {
        "discriminator": encoder_flops_per_token(model, length) + heads[head],
        **generator_flops_per_token(
            model, generator, length, length if generates_everywhere else masked
        ),
    }
    return {name: 3 * flops for name, flops in forward.items()}
