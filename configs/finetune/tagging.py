"""A label for each word: entities, chunks, slots; a CoNLL file, or JSON lines.

    electra-jax finetune --config finetune/tagging --workdir runs/tag \
        --config.init.from=MODEL --config.task.train=train.conll --config.task.validation=dev.conll

The first column of a CoNLL file is the word, the last its label. Of JSON lines name the
columns: --config.task.words=tokens --config.task.label=tags.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ())
    config = finetune_defaults("tagging")
    config.train.update(length=256)
    return config
