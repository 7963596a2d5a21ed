"""Vectors of texts that lie near where one answers the other, for search.

    electra-jax finetune --config finetune/retrieval --workdir runs/retrieve \
        --config.init.from=MODEL --config.task.train=pairs.jsonl --config.task.validation=beir:DIR

JSON lines with the columns query and positive; `beir:DIR` is a collection in BEIR's layout.
The variant `rerank` instead reads query and document together, and puts BM25's finds in order.
"""

from electra_jax.config import choose_variant, finetune_defaults


def get_config(variant: str = ""):
    choose_variant(variant, ("rerank",))
    config = finetune_defaults("reranking" if variant == "rerank" else "retrieval")
    config.train.update(length=256, batch_size=64)
    if variant == "rerank":
        config.train.update(batch_size=16)
    return config
