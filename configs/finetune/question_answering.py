"""Answer questions by a span of a text: SQuAD's JSON, or JSON lines with the same columns.

    electra-jax finetune --config finetune/question_answering --workdir runs/answer \
        --config.init.from=MODEL --config.task.train=train.json --config.task.validation=dev.json

The variant `official` has the joint head of ELECTRA's own code, which Hugging Face has not.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ("official",))
    config = finetune_defaults("question_answering")
    config.train.update(length=512, epochs=2.0, eval_batch_size=16)
    if variant == "official":
        config.task.head = "official"
    return config
