"""A run so small that tests can start it many times, and a store for it."""

import contextlib
import importlib

import jax
import numpy as np
import pytest

from electra_jax.config import load_config, pretrain_config
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.parallel.mesh import make_mesh
from electra_jax.training.metrics import read_metrics

TINY = [
    "model.layers=2", "model.hidden=16", "model.heads=2", "model.intermediate=32",
    "model.embedding=16", "data.length=32", "train.batch_size=16", "eval.batch_size=16",
    "train.time_budget=", "train.steps=20", "train.log_every=5", "eval.every_steps=10",
    "checkpoint.every_steps=5", "optimizer.warmup_steps=5",
]  # fmt: skip


def make_store(path):
    """Sentences with some order in them."""
    rng = np.random.default_rng(0)
    nouns, verbs = ["cat", "dog", "bird", "fish", "cow"], ["eats", "sees", "likes", "hears"]
    texts = [
        " ".join(
            f"the {rng.choice(nouns)} {rng.choice(verbs)} the {rng.choice(nouns)} ."
            for _ in range(rng.integers(2, 9))
        )
        for _ in range(600)
    ]
    tokenizer = train_tokenizer(texts, "wordpiece", 100)
    prepare(texts, tokenizer, path, workers=1, validation_share=0.1, progress=False)
    return path


@contextlib.contextmanager
def one_device():
    """Runs of this process are on one device, for what is the same on many, but slower."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pretraining.pretrain", "finetuning.finetune"):
            module = importlib.import_module(f"electra_jax.{name}")
            patch.setattr(module, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
        yield


def tiny(store, *overrides):
    return pretrain_config(
        load_config("pretrain/tiny", [*TINY, f"data.store={store}", *overrides]).to_dict()
    )


def logged(workdir):
    """Metrics without what depends on the clock."""
    clock = ("seconds", "train/tokens_per_second", "train/mfu")
    return [{k: v for k, v in x.items() if k not in clock} for x in read_metrics(workdir)]
