"""The nine sets of GLUE, a variant each, with their official columns and metrics.

    electra-jax glue --model MODEL --data DIR --workdir runs/glue
    electra-jax finetune --config finetune/glue:sst2 --workdir runs/sst2 \
        --config.init.from=MODEL --config.task.train=SST-2/train.tsv \
        --config.task.validation=SST-2/dev.tsv

`paper` after the variant (sst2-paper) takes the paper's settings: three epochs, or ten of RTE and
STS-B, one rate for encoder and head, which is that for Small, 3e-4 (Base: 1e-4, Large: 5e-5), and
no weight decay.
"""

from electra_jax.config import choose_variant, finetune_defaults

PAIR = {"text": "sentence1", "text_b": "sentence2"}
VARIANTS = {
    "cola": {
        "columns": "source,label,mark,sentence", "text": "sentence", "metric": "matthews",
    },
    "sst2": {"text": "sentence"},
    "mrpc": {
        "text": "#1 String", "text_b": "#2 String", "label": "Quality", "both_orders": True,
    },
    "stsb": {**PAIR, "label": "score", "scale": 5.0, "both_orders": True},
    "qqp": {"text": "question1", "text_b": "question2", "label": "is_duplicate"},
    "mnli": {**PAIR, "label": "gold_label"},
    "qnli": {"text": "question", "text_b": "sentence"},
    "rte": PAIR,
    "wnli": PAIR,
}  # fmt: skip


def get_config(variant: str = ""):
    names = [*VARIANTS, *(f"{name}-paper" for name in VARIANTS)]
    name, _, paper = choose_variant(variant or "sst2", names).partition("-")
    config = finetune_defaults("regression" if name == "stsb" else "classification")
    config.task.update(VARIANTS[name])
    if name in ("rte", "stsb"):
        config.train.epochs = 10.0
    if paper:
        config.train.epochs = config.train.epochs or 3.0
        config.optimizer.update(learning_rate=3e-4, weight_decay=0.0)
        config.optimizer.update(separate="", separate_learning_rate=0.0)
    return config
