"""What an utterance wants, and which of its words say what: intents and slots, jointly.

    electra-jax finetune --config finetune/intent_slots --workdir runs/intent_slots \
        --config.init.from=MODEL --config.task.train=train.jsonl

JSON lines with the columns tokens, slots (a label each) and intent.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ())
    config = finetune_defaults("intent_slots")
    config.train.update(epochs=5.0)
    return config
