"""Linear models beside a fine-tuned one, and how long and how fast it is trained."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tiny_encoder import WORDS

from electra_jax.config import FinetuneConfig, finetune_config, load_config
from electra_jax.finetuning import finetune as module
from electra_jax.finetuning.finetune import read_data, warn_of_simpler
from electra_jax.finetuning.linear import linear_metrics
from electra_jax.finetuning.objective import run_optimizer
from electra_jax.finetuning.sweep import render
from electra_jax.inference.encoder import embed
from electra_jax.inference.finetuned import load
from electra_jax.models.encoder import ModelConfig
from electra_jax.tasks.classification import (
    Classification,
    ClassificationConfig,
    Record,
    Regression,
    RegressionConfig,
)
from electra_jax.tasks.task import TaskConfig


@pytest.fixture(scope="module")
def encoder(encoder_dir):
    return load(encoder_dir).encoder


def records(count, label, seed=0):
    """Texts that open with `good` or `bad`, and what `label` makes of it."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        sign = index % 2
        words = [("bad", "good")[sign], *rng.choice(WORDS, 4)]
        found.append(Record(f"row {index}", " ".join(words), None, label(sign)))
    return found


def test_frozen_vectors_and_words_are_answered_linearly(encoder):
    task = Classification(ClassificationConfig(), encoder.tokenizer)
    train, new = (records(count, "ny".__getitem__, seed) for count, seed in ((40, 0), (20, 1)))
    task.fit(train)
    metrics = linear_metrics(task, encoder, train, new, 16)
    assert metrics["words"]["accuracy"] == 1.0  # one word tells
    vectors = [embed(encoder, [record.text for record in part], 16) for part in (train, new)]
    model = LogisticRegression(C=10.0, max_iter=1000).fit(vectors[0], [r.label for r in train])
    right = model.predict(vectors[1]) == [record.label for record in new]
    assert metrics["frozen"]["accuracy"] == pytest.approx(right.mean())


def test_numbers_are_answered_by_ridge_regression_and_a_fresh_encoder_has_no_vectors(encoder):
    task = Regression(RegressionConfig(), encoder.tokenizer)
    train, new = (records(count, float, seed) for count, seed in ((40, 0), (20, 1)))
    task.fit(train)
    metrics = linear_metrics(task, None, train, new, 16)
    assert set(metrics) == {"words"} and metrics["words"]["pearson"] > 0.8


def test_what_is_simpler_and_better_is_warned_of_and_in_the_table(caplog):
    results = {"metric": "accuracy", "metrics": {"accuracy": 0.66}, "trivial": {"accuracy": 0.1},
               "words": {"accuracy": 0.5}, "frozen": {"accuracy": 0.91}}  # fmt: skip
    with caplog.at_level(logging.WARNING):
        warn_of_simpler(results)
    [line] = caplog.messages
    assert "accuracy 0.660, a linear model of the encoder's frozen vectors alone 0.910" in line
    table = render([("run", [results])])
    assert "| a linear model of its word pieces | 50.0 |" in table


@pytest.mark.parametrize(("hidden", "rate"), [(128, 6e-4), (256, 3e-4), (768, 1e-4)])
def test_the_rate_follows_the_width_unless_it_is_given(hidden, rate):
    model = ModelConfig(hidden=hidden, heads=4, embedding=128)
    config = FinetuneConfig(TaskConfig("classification"))
    assert run_optimizer(config, model, 100).learning_rate == pytest.approx(rate)
    given = finetune_config(load_config("finetune/tagging", ["optimizer.learning_rate=2e-5"]))
    assert run_optimizer(given, model, 100).learning_rate == 2e-5


@pytest.mark.parametrize(("epochs", "steps"), [("0", 500), ("2", 6), ("200", 600)])
def test_few_rows_are_read_more_often_unless_epochs_are_given(encoder, tmp_path, epochs, steps):
    file = tmp_path / "train.csv"
    rows = [f"{record.text},{record.label}" for record in records(24, str)]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    fields = [f"task.train={file}", f"task.validation={file}", f"train.epochs={epochs}",
              "train.batch_size=8", "train.length=16"]  # fmt: skip
    config = finetune_config(load_config("finetune/classification", fields))
    task = Classification(config.task, encoder.tokenizer)
    assert read_data(config, task).steps == steps


@pytest.mark.parametrize("evaluations", [0.34, 0.7, 1.0, 2.0])
def test_the_last_evaluation_but_one_is_not_right_before_the_end(evaluations):
    for steps in (40, 100, 188, 501):
        every = module.evaluation_interval(steps, module.EPOCHS, evaluations)
        times = [*range(every, steps, every), steps]
        assert len(times) <= max(1, round(module.EPOCHS * evaluations))
        assert len(times) == 1 or times[-1] - times[-2] > every / 2
