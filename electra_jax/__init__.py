"""ELECTRA pretraining and fine-tuning in JAX.

The commands are functions: `train_tokenizer`, `prepare`, `pretrain`, `finetune`, `evaluate` and
`export` (see `electra_jax.api`). `load(DIR)` opens a model directory. Pretrained models have
`inspect`, `embed` and `score`, fine-tuned ones `predict` and `embed`.

What users can mend is raised as `UsageError`, a kind of `ElectraError`; `Stopped` tells that a
signal ended a run, which is saved.
"""

import importlib
from typing import Any

from electra_jax.errors import ElectraError, Stopped, UsageError

__version__ = "0.1.0"
FUNCTIONS = {  # and where they are
    "evaluate": "evaluation", "export": "api", "finetune": "api", "load": "inference.finetuned",
    "prepare": "api", "pretrain": "api", "train_tokenizer": "api",
}  # fmt: skip
__all__ = [
    "ElectraError", "Stopped", "UsageError",
    "evaluate", "export", "finetune", "load", "prepare", "pretrain", "train_tokenizer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Only when it is asked for: JAX takes seconds to import, and `--version` needs none of it.
    if name in FUNCTIONS:
        module = importlib.import_module(f"electra_jax.{FUNCTIONS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *FUNCTIONS])
