"""ELECTRA-Base as published (Clark et al., 2020): 119.4M parameters in training.

    electra-jax pretrain --config pretrain/base --workdir runs/base --config.data.store=STORE

`base:modern` is the same size with the modern block, at the same optimizer.

Expect a first masked-LM loss of 10.33 (ln 30522) and a total around 45. The paper's
Base trains 766K steps of 256 rows of 512 tokens: four days on 16 TPUv3.
"""

from electra_jax.config import choose_variant, pretrain_defaults


def get_config(variant: str = ""):
    config = pretrain_defaults()
    config.model.update(hidden=768, heads=12, intermediate=3072, embedding=768)
    config.generator.width = 1 / 3
    config.data.length = 512
    config.train.batch_size = 256
    config.train.steps = 766_000
    config.optimizer.learning_rate = 2e-4
    if choose_variant(variant, ("modern",)):
        config.model.architecture = "modern"
        config.model.intermediate = 2048
        config.model.dropout = config.model.attention_dropout = 0.0
        config.generator.width = 1.0
        config.generator.depth = 0.25
        config.data.layout = "packed"
    return config
