"""Classify your own texts: a CSV with the columns text and label.

    electra-jax finetune --config finetune/classification --workdir runs/classify \
        --config.init.from=MODEL --config.task.train=train.csv --config.task.validation=dev.csv

Columns of other names: --config.task.text=NAME --config.task.label=NAME; a second text:
--config.task.text_b=NAME. Without a validation file a tenth of the rows is held out. The
variant `regression` learns a number for each row instead of a label.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ("regression",))
    return finetune_defaults(variant or "classification")
