"""How a short pretraining is set up, and what decides when its generator learns.

`gpu_session.py` measures it: `pretrain` takes `RECIPE`, and `plateau` trains each of `ARMS`, the
generator of Small alone, as BERT's masked language model. Small post-norm encoders with learned
positions first learn how frequent tokens are, then which of them go together, and only later
attend to positions. The arms tell which settings that depends on.
"""

import contextlib
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.token_store import TokenStore
from electra_jax.errors import UsageError
from electra_jax.models.electra import generator_model
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.training.metrics import read_metrics
from electra_jax.training.optimizer import schedule_factor

# The published Small, for minutes instead of days. What a short run lacks is steps times rate:
# small batches have more steps a token, and the rate stays at its peak until the last tenth.
RECIPE = (
    "data.layout=packed", "train.batch_size=128", "optimizer.learning_rate=5e-4",
    "optimizer.warmup_steps=2000", "optimizer.schedule=stable", "optimizer.decay_share=0.1",
)  # fmt: skip
LARGE_BATCH = (
    "train.batch_size=512", "optimizer.learning_rate=1e-3", "optimizer.warmup_steps=1000",
)  # fmt: skip
# What each arm of the plateau changes in the recipe; the most telling first.
ARMS = {
    "recipe": (),
    "512-rows": (*LARGE_BATCH, "optimizer.schedule=linear"),
    "512-rows-stable": LARGE_BATCH,
    "width-256": ("generator.width=1.0",),
    "epsilon-1e-12": ("optimizer.epsilon=1e-12",),
    "float32": ("model.dtype=float32",),
}


def full_precision(dtype: str) -> contextlib.AbstractContextManager:
    """Multiplies float32 in full.

    By itself a GPU multiplies it as TF32, which has as few digits as bfloat16 and two.
    """
    return jax.default_matmul_precision("highest" if dtype == "float32" else "default")


def check_plateau(store: str, seconds: float) -> None:
    """Refuses what no arm can be trained on.

    Raises:
      UsageError: no store, nothing held out in it, or no number of seconds.
    """
    if not len(TokenStore.open(store).split("validation").tokens):
        raise UsageError(f"{store} holds nothing out: prepare it with a --validation-share")
    if not 0 < seconds < math.inf:
        raise UsageError(f"--arm-seconds={seconds}: a number above 0")


def arm_config(arm: str, store: str, seconds: float) -> PretrainConfig:
    """The generator of Small as the main network of a masked language model, by one of `ARMS`."""
    fields = [
        *RECIPE, *ARMS[arm], f"data.store={store}", f"train.time_budget={seconds:g}s",
        "checkpoint.every_steps=2000",
        "eval.every_steps=1000000000",  # only once, after the end: it takes none of the budget
    ]  # fmt: skip
    if jax.default_backend() == "cpu":
        fields += ["train.log_every=5", "checkpoint.every_steps=10"]
    config = pretrain_config(load_config("pretrain/small", fields))
    rows = config.train.batch_size // (16 if jax.default_backend() == "cpu" else 1)
    return dataclasses.replace(
        config,
        model=generator_model(config.model, config.generator),
        generator=dataclasses.replace(config.generator, kind="none"),
        objective=dataclasses.replace(config.objective, name="mlm"),
        train=dataclasses.replace(config.train, batch_size=rows),
    )


def train_arm(arm: str, store: str, seconds: float, workdir: str) -> dict:
    """What an arm has learnt, in this process; resumes where an earlier one was cut off."""
    config = arm_config(arm, store, seconds)
    with full_precision(config.model.dtype):
        pretrain(config, workdir, compile_first=True)
    lines = read_metrics(workdir)
    last = next(line for line in reversed(lines) if "eval/loss" in line)
    log = [line for line in lines if "train/loss" in line]
    return {
        "accuracy": last["eval/discriminator_accuracy"],
        "accuracy_of_most_frequent": last["eval/discriminator_accuracy_baseline"],
        "loss": last["eval/discriminator_loss"],
        "unigram_loss": unigram_loss(TokenStore.open(store)),
        **amount_trained(config, lines),
        "train_accuracy": [  # by seconds
            [line["seconds"], line["train/discriminator_accuracy"]]
            for line in log[:: max(1, len(log) // 10)]
        ],
    }


def amount_trained(config: PretrainConfig, lines: list[dict]) -> dict:
    """Steps, tokens and the sum of the steps' learning rates, up to the last line of the log.

    The clock, which a schedule by time follows, is interpolated between the lines.
    """
    steps = np.arange(lines[-1]["step"])
    if config.train.budget_seconds:
        logged = [(0, 0.0), *((line["step"], line["seconds"]) for line in lines)]
        progress = np.interp(steps, *zip(*logged, strict=True)) / config.train.budget_seconds
    else:
        progress = steps / config.train.steps
    factors = schedule_factor(config.optimizer, jnp.array(steps), jnp.array(progress))
    return {
        "steps": len(steps),
        "tokens": len(steps) * config.train.batch_size * config.data.length,
        "learning_rate_sum": config.optimizer.learning_rate * float(factors.sum()),
    }


def unigram_loss(store: TokenStore) -> float:
    """The cross-entropy of held-out tokens under the frequencies of the training split."""
    size = store.tokenizer.vocab_size
    counts, held_out = (
        np.bincount(store.split(name).tokens, minlength=size) for name in ("train", "validation")
    )
    frequencies = (counts + 1) / (counts + 1).sum()  # none is zero
    return -float(held_out @ np.log(frequencies)) / int(held_out.sum())
