"""ELECTRA-Small as published (Clark et al., 2020): 14.2M parameters in training.

    electra-jax pretrain --config pretrain/small --workdir runs/small --config.data.store=STORE

- `small:modern` is the same size with the modern block, at the same optimizer.
- `small:released` is how the released small model was trained ("Small++"): a generator as wide
  as the discriminator, rows of 512 and 4M steps.
- `small:short` and `small:modern-short` are for half an hour of one GPU: the rate stays at its
  peak until the last tenth of the time.

docs/pretraining.md says what to expect of each.

Expect a first masked-LM loss of 10.33 (ln 30522) and a total around 45. The paper's
Small trains 1M steps of 128 rows, 16.4 billion tokens: four days on a V100.
"""

from electra_jax.config import choose_variant, pretrain_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ("modern", "released", "short", "modern-short"))
    config = pretrain_defaults()  # the published Small
    if variant == "released":
        config.generator.width = 1.0
        config.data.length = 512
        config.train.steps = 4_000_000
    if variant.startswith("modern"):
        config.model.architecture = "modern"
        config.model.embedding = config.model.hidden
        config.model.intermediate = 640
        config.model.dropout = config.model.attention_dropout = 0.0
        config.generator.width = 1.0
        config.generator.depth = 0.25
        config.data.layout = "packed"
    if variant.endswith("short"):
        config.data.layout = "packed"
        config.optimizer.update(warmup_steps=2000, schedule="stable", decay_share=0.1)
        config.train.time_budget = "30m"
        config.eval.every_steps = config.checkpoint.every_steps = 4000
    return config
