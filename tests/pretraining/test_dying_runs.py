"""Runs made to die say so, and sound ones say nothing."""

import json

import pytest
from tiny_run import TINY, make_store, tiny

from electra_jax.config import load_config, pretrain_config
from electra_jax.pretraining.health import STEEP, STEEPEST, early_rate, warnings_at_start
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.report import write_report
from electra_jax.reporting.run_warnings import warnings
from electra_jax.training.metrics import read_metrics

# What `Small` is, tiny: without dropout, at a rate that stays.
PUBLISHED = [
    *TINY, "generator.width=0.5", "model.dropout=0", "model.attention_dropout=0",
    "optimizer.schedule=constant", "eval.every_steps=1000", "checkpoint.every_steps=1000",
]  # fmt: skip
SHIPPED = [
    "small", "small:modern", "small:released", "small:short", "small:modern-short", "base",
    "base:modern", "large", "large:modern", "tiny", "tiny:overnight", "family:small-mlm",
]  # fmt: skip


def told(spec, *fields):
    return warnings_at_start(pretrain_config(load_config(f"pretrain/{spec}", fields)))


@pytest.mark.parametrize("spec", SHIPPED)
def test_shipped_configs_warm_up_gently(spec):
    assert told(spec) == {}


@pytest.mark.parametrize(
    ("rate", "warmup", "layers", "steep"),
    [
        # Measured.
        (1e-3, 15, 12, True),
        (1e-3, 100, 12, True),
        (1e-3, 1000, 12, False),
        (1e-3, 200, 2, False),
        # Between them, and around them.
        (5e-4, 0, 12, True),
        (1e-5, 0, 12, False),
        (1.0, 1000, 1, True),
    ],
)
def test_a_steep_warmup_is_told_from_a_gentle_one(rate, warmup, layers, steep):
    fields = [
        f"optimizer.learning_rate={rate}", f"optimizer.warmup_steps={warmup}",
        f"model.layers={layers}",
    ]  # fmt: skip
    found = told("small", *fields)
    assert (STEEP in found) is steep
    if steep:
        assert f"rises to {rate:g} within {warmup:,} steps" in found[STEEP]
        advised = found[STEEP].partition("warmup_steps=")[2].partition(" ")[0]
        assert told("small", *fields, f"optimizer.warmup_steps={advised}") == {}
        config = pretrain_config(load_config("pretrain/small", fields))
        assert early_rate(config.optimizer) * layers > STEEPEST


def test_only_what_was_seen_to_die_is_warned_of():
    steep = ["optimizer.learning_rate=1e-2", "optimizer.warmup_steps=10"]
    gentle = ["optimizer.learning_rate=1e-6", "optimizer.warmup_steps=10"]
    separate = ["optimizer.separate=^generator/", "optimizer.separate_learning_rate=1e-2"]
    assert told("small", *steep) and told("small", *gentle, *separate)
    assert told("small:modern", *steep) == told("small", *steep, "optimizer.name=muon") == {}
    assert told("small", *steep, "init.from=somewhere") == {}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def warned(config, workdir):
    """The warnings of a run, by name, and their texts on the page."""
    pretrain(config, workdir)
    lines = read_metrics(workdir)
    page = write_report(workdir).read_text()
    assert page.count("<li>Step ") == len(warnings(lines))
    return {name: text for line in lines for name, text in line.get("warnings", {}).items()}


def published(store, *fields):
    return pretrain_config(
        load_config("pretrain/small", [*PUBLISHED, f"data.store={store}", *fields])
    )


@pytest.mark.slow
def test_attention_killed_by_a_steep_warmup_is_warned_of(store, tmp_path, one_device, caplog):
    config = published(
        store, "train.steps=130", "optimizer.learning_rate=3e-2", "optimizer.warmup_steps=5"
    )
    found = warned(config, tmp_path)
    assert set(found) == {
        STEEP, "generator_attention_dead", "discriminator_attention_dead",
        "generator_single_words", "discriminator_all_original",
    }  # fmt: skip
    assert None not in found.values()  # it does not recover
    for text in found.values():
        assert text in caplog.text and "try" in text
    entropy = json.loads((store / "manifest.json").read_text())["splits"]["train"]
    [line] = [
        x for x in read_metrics(tmp_path) if "generator_single_words" in x.get("warnings", {})
    ]
    assert line["train/generator_masked_loss_baseline"] == entropy["unigram_entropy"]
    assert f"{line['train/generator_masked_loss']:.3g}" in found["generator_single_words"]


@pytest.mark.slow
def test_a_generator_too_large_to_be_caught_is_warned_of(store, tmp_path, one_device):
    """It is four times as deep as the discriminator, which cannot tell its samples from text."""
    config = tiny(
        store, "train.steps=180", "train.log_every=20", "model.layers=1", "generator.depth=4",
        "objective.temperature=1", "optimizer.learning_rate=3e-2", "optimizer.schedule=constant",
        "eval.every_steps=1000", "checkpoint.every_steps=1000",
    )  # fmt: skip
    found = warned(config, tmp_path)
    assert list(found) == ["discriminator_all_original"]
    assert "try a smaller generator" in found["discriminator_all_original"]


@pytest.mark.slow
def test_a_rate_of_one_is_warned_of(store, tmp_path, one_device):
    config = published(
        store, "train.steps=30", "optimizer.learning_rate=1", "optimizer.warmup_steps=5"
    )
    found = warned(config, tmp_path)
    assert {"generator_diverged", "discriminator_diverged", STEEP} <= set(found)


@pytest.mark.slow
def test_a_sound_run_is_not_warned(store, tmp_path, one_device, caplog):
    assert warned(tiny(store, "train.steps=150", "optimizer.learning_rate=1e-2"), tmp_path) == {}
    assert "warning" not in caplog.text
