"""Choose one of several candidates, such as the next reply of a dialogue.

    electra-jax finetune --config finetune/choice --workdir runs/choose \
        --config.init.from=MODEL --config.task.train=train.jsonl

JSON lines with the columns text, options (a list) and label.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ())
    config = finetune_defaults("choice")
    config.train.update(length=256, batch_size=16, eval_batch_size=16)
    return config
