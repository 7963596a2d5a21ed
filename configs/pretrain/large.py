"""ELECTRA-Large as published (Clark et al., 2020): 354.7M parameters in training.

    electra-jax pretrain --config pretrain/large --workdir runs/large --config.data.store=STORE

`large:modern` is the same size with the modern block, at the same optimizer.

Large masks a quarter of the tokens, not 15 %: with Small's settings it diverges. Expect
a first masked-LM loss of 10.33 (ln 30522) and a total around 45. The paper's Large
trains 400K steps (and, in its longer version, 1.75M) of 2048 rows of 512 tokens.
"""

from electra_jax.config import choose_variant, pretrain_defaults


def get_config(variant: str = ""):
    config = pretrain_defaults()
    config.model.update(layers=24, hidden=1024, heads=16, intermediate=4096, embedding=1024)
    config.objective.mask_rate = 0.25
    config.data.length = 512
    config.train.batch_size = 2048
    config.train.steps = 400_000
    config.optimizer.learning_rate = 2e-4
    if choose_variant(variant, ("modern",)):
        config.model.architecture = "modern"
        config.model.intermediate = 2624
        config.model.dropout = config.model.attention_dropout = 0.0
        config.generator.width = 1.0
        config.generator.depth = 0.25
        config.data.layout = "packed"
    return config
