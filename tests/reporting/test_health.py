"""A run is called sound, or not, by the bounds and warnings that it was trained under."""

import pytest

from electra_jax.config import load_config, pretrain_config
from electra_jax.objectives.diagnosis import NO_RECALL, SINGLE_WORDS
from electra_jax.reporting.health import BAD, GOOD, WATCH, health, overall
from electra_jax.reporting.run import Run
from electra_jax.training.health import RISE

CONFIG = pretrain_config(load_config("pretrain/tiny", ["model.vocab_size=1000"]))
SOUND = {
    "train/loss": 5.0, "train/generator_masked_loss": 5.0,
    "train/generator_masked_loss_baseline": 6.0, "train/discriminator_loss": 0.3,
    "train/discriminator_auc": 0.75, "train/discriminator_recall": 0.25,
    "train/learning_rate": 1e-3, "train/gradient_norm/generator": 1.0,
    "train/query_key_gradient_norm/generator": 0.1,
}  # fmt: skip


def make_run(*lines, **fields):
    lines = [{"step": 10 * n, "seconds": float(n), **line} for n, line in enumerate(lines, 1)]
    return Run("run", lines, {}, fields.pop("config", CONFIG), **fields)


def states(run):
    return {check.name: check.state for check in health(run)}


def test_a_sound_run_is_called_so():
    run = make_run(SOUND)
    assert set(states(run).values()) == {GOOD} and overall(health(run)) == GOOD
    assert set(states(run)) == {"Generator", "Discriminator", "Loss", "Learning rate", "Gradients"}


@pytest.mark.parametrize(
    ("check", "metric", "value"),
    [
        ("Generator", "generator_masked_loss", 6.0 * SINGLE_WORDS + 0.01),
        ("Discriminator", "discriminator_recall", NO_RECALL / 2),
        ("Discriminator", "discriminator_loss", 0.8),
        ("Gradients", "query_key_gradient_norm/generator", 1e-9),
        ("Loss", "loss", 5.0 * RISE + 1),
    ],
)
def test_what_the_objective_finds_is_watched_until_it_is_warned_of(check, metric, value):
    run = make_run(SOUND, {**SOUND, f"train/{metric}": value})
    assert {name for name, state in states(run).items() if state != GOOD} == {check}
    assert states(run)[check] == WATCH == overall(health(run))


@pytest.mark.parametrize(
    ("warning", "check", "state"),
    [
        ("generator_single_words", "Generator", BAD),
        ("generator_attention_dead", "Gradients", BAD),
        ("discriminator_all_original", "Discriminator", BAD),
        ("loss_risen", "Loss", BAD),
        ("not_a_number", "Loss", BAD),
        ("steep_warmup", "Learning rate", WATCH),
        ("of_a_plugin", "Warning", BAD),
    ],
)
def test_a_warning_counts_until_it_is_over(warning, check, state):
    told = make_run({**SOUND, "warnings": {warning: "it <fails>"}}, SOUND)
    assert states(told)[check] == state == overall(health(told))
    assert any(one.text == "Since step 10: it <fails>." for one in health(told))
    over = make_run({**SOUND, "warnings": {warning: "x"}}, {**SOUND, "warnings": {warning: None}})
    assert overall(health(over)) == GOOD and "Earlier" in states(over)


@pytest.mark.parametrize(
    ("words", "trivial", "state"), [(0.5, 0.25, GOOD), (0.75, 0.25, WATCH), (0.5, 0.8, BAD)]
)
def test_fine_tuning_must_beat_simpler_ways(words, trivial, state):
    results = {
        "metric": "f1", "step": 10, "rows": {}, "metrics": {"f1": 0.75}, "trivial": {"f1": trivial},
        "words": {"f1": words},
    }  # fmt: skip
    run = make_run({"train/loss": 1.0}, config=None, results=results)
    assert states(run) == {"Beside simpler ways": state, "Loss": GOOD}


def test_a_line_that_lacks_what_is_looked_at_is_no_failure():
    run = make_run({"train/loss": 1.0})
    assert states(run) == {"Loss": GOOD}
    assert health(make_run({"eval/x": 1.0})) == []
