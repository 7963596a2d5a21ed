"""ELECTRA-Small as published (Clark et al., 2020): 14.2M parameters in training.

    electra-jax pretrain --config pretrain/small --workdir runs/small --config.data.store=STORE

`small:modern` is the same size with the modern block, at the same optimizer.

Expect a first masked-LM loss of 10.33 (ln 30522) and a total around 45. The paper's
Small trains 1M steps of 128 rows, 16.4 billion tokens: four days on a V100.
"""

from electra_jax.config import choose_variant, pretrain_defaults


def get_config(variant: str = ""):
    config = pretrain_defaults()  # the published Small
    if choose_variant(variant, ("modern",)):
        config.model.architecture = "modern"
        config.model.embedding = config.model.hidden
        config.model.intermediate = 640
        config.model.dropout = config.model.attention_dropout = 0.0
        config.generator.width = 1.0
        config.generator.depth = 0.25
        config.data.layout = "packed"
    return config
