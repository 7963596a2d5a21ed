"""What the metrics of a line tell, on lines as sound runs and dead ones write them."""

import dataclasses
import math

import pytest
from tiny_model import PUBLISHED

from electra_jax.models.electra import Electra, GeneratorConfig
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.diagnosis import ATTENTION, PLATEAU, START
from electra_jax.objectives.electric import Electric
from electra_jax.objectives.masked_lm import AllTokensMLM, MaskedLM, ReplaceMLM
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.objectives.replaced_token import MaskedTokenDetection, ReplacedTokenDetection

VOCABULARY = 1000  # ln: 6.908
SOUND = {
    "loss": 20.0,
    "generator_masked_loss": 5.0, "generator_masked_loss_baseline": 6.0,
    "discriminator_loss": 0.3, "discriminator_auc": 0.7, "discriminator_recall": 0.1,
    "gradient_norm/generator": 1.0, "query_key_gradient_norm/generator": 1e-3,
    "gradient_norm/discriminator": 8.0, "query_key_gradient_norm/discriminator": 1e-2,
}  # fmt: skip


def objective(kind=ReplacedTokenDetection, generator="transformer"):
    model = dataclasses.replace(PUBLISHED[0], vocab_size=VOCABULARY)
    electra = Electra(model, GeneratorConfig(kind=generator), kind.head)
    return kind(ObjectiveConfig(), electra, SpecialTokens(0, 2, 3, 4))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        ({"generator_masked_loss": 5.95}, {"generator_single_words": PLATEAU}),
        ({"generator_masked_loss": 5.85}, {}),  # a bag of words
        ({"generator_masked_loss": 7.3}, {"generator_diverged": START}),
        ({"discriminator_loss": 0.74}, {"discriminator_diverged": START}),
        (
            {"discriminator_auc": 0.51, "discriminator_recall": 0.019},
            {"discriminator_all_original": PLATEAU},
        ),
        ({"discriminator_auc": 0.62, "discriminator_recall": 0.021}, {}),  # it begins to learn
        ({"discriminator_auc": math.nan, "discriminator_recall": 0.0}, {}),  # nothing replaced
        ({"query_key_gradient_norm/generator": 5e-14}, {"generator_attention_dead": ATTENTION}),
        (
            {"query_key_gradient_norm/discriminator": 0.0},
            {"discriminator_attention_dead": ATTENTION},
        ),
        # Frozen.
        ({"gradient_norm/generator": 0.0, "query_key_gradient_norm/generator": 0.0}, {}),
    ],
)
def test_each_finding_has_its_metrics(changed, expected):
    found = objective().diagnose({**SOUND, **changed})
    assert {name: patience for name, (_, patience) in found.items()} == expected
    assert all(" try " in text for text, _ in found.values())


def test_without_the_entropy_only_divergence_is_found():
    values = {k: v for k, v in SOUND.items() if not k.endswith("baseline")}
    assert objective().diagnose({**values, "generator_masked_loss": 6.5}) == {}
    assert objective().diagnose({**values, "generator_masked_loss": 7.5})


@pytest.mark.parametrize("generator", ["unigram", "uniform"])
def test_a_generator_of_frequencies_may_know_frequencies_alone(generator):
    values = {k: v for k, v in SOUND.items() if k != "generator_masked_loss"}
    assert objective(generator=generator).diagnose({**values, "generator_masked_loss": 6.0}) == {}


def test_a_masked_language_model_is_diagnosed_itself():
    values = {
        "loss": 6.0, "discriminator_loss": 6.0, "discriminator_masked_loss": 6.0,
        "discriminator_masked_loss_baseline": 6.0,
    }  # fmt: skip
    [(name, finding)] = objective(MaskedLM, "none").diagnose(values).items()
    assert name == "discriminator_single_words" and "the language model has" in finding.text


@pytest.mark.parametrize("kind", [ReplaceMLM, AllTokensMLM, MaskedTokenDetection])
def test_generators_of_all_objectives_are_diagnosed(kind):
    assert "generator_single_words" in objective(kind).diagnose(
        {**SOUND, "generator_masked_loss": 6.0}
    )


def test_a_line_of_an_earlier_version_is_read():
    old = {"loss": 20.0, "generator_loss": 5.0, "discriminator_loss": 0.3,
           "discriminator_auc": 0.7, "discriminator_recall": 0.1}  # fmt: skip
    assert objective().diagnose(old) == {} == objective(MaskedLM, "none").diagnose({"loss": 5.0})
    assert objective(Electric, "two_tower").diagnose(old) == {}
