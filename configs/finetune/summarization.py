"""Short summaries: the best sentences of a text, or a text written anew.

    electra-jax finetune --config finetune/summarization --workdir runs/summarize \
        --config.init.from=MODEL --config.task.train=train.jsonl

JSON lines with the columns source (a list of sentences) and target (a summary, or several).
The variant `abstractive` writes with a small decoder, which learns at a rate of its own.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ("abstractive",))
    if not variant:
        config = finetune_defaults("extractive_summarization")
        config.train.update(length=512, epochs=5.0, batch_size=16, eval_batch_size=16)
        return config
    config = finetune_defaults("abstractive_summarization")
    config.train.update(length=512, epochs=10.0, batch_size=16, eval_batch_size=16)
    config.optimizer.update(separate="(^|/)head/", separate_learning_rate=1e-3)
    return config
