"""ELECTRA's objective against a plain NumPy reading of its definition."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.objectives import metrics
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.objectives.replaced_token import ReplacedTokenDetection

pytestmark = pytest.mark.slow

MODEL = ModelConfig(
    vocab_size=60, layers=1, hidden=16, heads=2, intermediate=32, embedding=8,
    max_positions=32, dropout=0.0, attention_dropout=0.0,
)  # fmt: skip


def objective(**fields):
    return ReplacedTokenDetection(
        ObjectiveConfig(**fields), Electra(MODEL, GeneratorConfig(width=0.5)),
        SpecialTokens(0, 2, 3, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def params():
    made = jax.jit(partial(init_params, objective().electra))(jax.random.key(0))
    # Larger than at the start, so that generator and discriminator have opinions.
    return jax.tree.map(lambda x: 10 * x if x.ndim > 1 else x, made)


def batch(rows=64, length=32, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 60, (rows, length))
    real = rng.integers(length // 2, length + 1, (rows, 1))
    documents = (np.arange(length) < real).astype(np.int32)
    tokens[:, 0] = 2
    return {
        "tokens": jnp.asarray(tokens * documents, jnp.int32),
        "documents": jnp.asarray(documents),
        "types": jnp.zeros((rows, length), jnp.int32),
    }


@partial(jax.jit, static_argnums=0)
def prepare(objective, batch):
    return objective.prepare(batch, jax.random.key(1))


@partial(jax.jit, static_argnums=0)
def compute(objective, params, prepared):
    """The networks' outputs, the losses and the metric sums."""
    out = objective.forward(params, prepared)
    return out, *objective.losses(params, prepared, None, 0, False)


def test_losses_are_the_definitions(params):
    o = objective()
    prepared = prepare(o, batch())
    out, losses, sums = compute(o, params, prepared)
    logits = np.asarray(out["generator_logits"].whole(), np.float64)
    weights, real = np.asarray(prepared["masked"].weights_BN), np.asarray(prepared["documents"]) > 0
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    tokens, corrupted = np.asarray(prepared["tokens"]), np.asarray(out["corrupted"])
    generator = discriminator = 0.0
    for row, slot in zip(*np.nonzero(weights), strict=True):
        position = prepared["masked"].positions_BN[row, slot]
        generator -= log_probability[row, slot, tokens[row, position]]
    probability = 1 / (1 + np.exp(-np.asarray(out["discriminator_logits"], np.float64)))
    for row, position in zip(*np.nonzero(real), strict=True):
        replaced = tokens[row, position] != corrupted[row, position]
        p = probability[row, position]
        discriminator -= np.log(p if replaced else 1 - p)
    assert losses["generator"] == pytest.approx(generator, rel=1e-5)
    assert losses["discriminator"] == pytest.approx(discriminator, rel=1e-5)
    figures = o.summarise(jax.device_get(sums))
    assert figures["loss"] == pytest.approx(
        generator / weights.sum() + 50 * discriminator / real.sum(), rel=1e-5
    )
    # Only chosen positions were touched, and padding never.
    changed = tokens != corrupted
    assert changed.sum() <= weights.sum() and not (changed & ~real).any()


def test_no_gradient_reaches_the_generator_from_the_discriminator(params):
    o = objective()
    prepared = prepare(o, batch())

    def loss(params, name):
        return o.losses(params, prepared, None, 0, False)[0][name]

    names = ("discriminator", "generator")
    gradient, masked_lm = jax.jit(lambda p: [jax.grad(loss)(p, name) for name in names])(params)
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(gradient["generator"]))
    assert float(jnp.abs(gradient["embeddings"]["word"]).max()) > 0
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(masked_lm["discriminator"]))


def test_temperature_changes_samples_and_not_the_generator_loss(params):
    plain, cold = objective(), objective(temperature=1e-3)
    prepared = prepare(plain, batch())
    results = [compute(o, params, prepared) for o in (plain, cold)]
    losses = [float(result[1]["generator"]) for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # of two programs
    guessed = [np.mean(out["samples"] == out["guesses"]) for out, *_ in results]
    assert guessed[0] < 0.5 and guessed[1] > 0.95


def test_forbidden_samples_are_all_replaced(params):
    o = objective(disallow_correct=True)
    prepared = prepare(o, batch())
    figures = o.summarise(jax.device_get(compute(o, params, prepared)[2]))
    assert figures["replaced_share"] == 1.0 and figures["generator_sampled_accuracy"] == 0.0


def test_metrics_beside_their_baselines(params):
    o = objective()
    data = batch()
    prepared = prepare(o, data)
    out, _, sums = jax.device_get(compute(o, params, prepared))
    figures = o.summarise(sums)
    real = np.asarray(data["documents"]) > 0
    truth, logits = out["replaced"][real], out["discriminator_logits"][real]
    said = logits >= 0
    assert figures["discriminator_accuracy"] == pytest.approx((truth == said).mean())
    assert figures["discriminator_accuracy_baseline"] == pytest.approx(1 - truth.mean())
    assert figures["discriminator_precision"] == pytest.approx(truth[said].mean())
    assert figures["discriminator_recall"] == pytest.approx(said[truth].mean())
    area = stats.mannwhitneyu(logits[truth], logits[~truth]).statistic
    area /= truth.sum() * (~truth).sum()
    assert figures["discriminator_auc"] == pytest.approx(area, abs=2e-3)
    inputs = np.take_along_axis(prepared["masked_tokens"], prepared["masked"].positions_BN, axis=1)
    guessing = (np.asarray(prepared["masked"].weights_BN) > 0) & (inputs != out["targets"])
    targets = out["targets"][guessing]
    guesses = np.asarray(out["generator_logits"].whole()).argmax(-1)[guessing]
    assert figures["generator_accuracy"] == pytest.approx((guesses == targets).mean())
    most = np.bincount(targets).max() / len(targets)
    assert figures["generator_accuracy_baseline"] == pytest.approx(most)


def test_copying_what_is_there_to_read_is_no_accuracy():
    targets = jnp.array([[5, 5, 5, 7, 7]])
    inputs = jnp.array([[5, 5, 4, 4, 4]])
    weights = jnp.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    sums = metrics.language_model_sums("g", weights, inputs, targets, weights, 9, inputs)
    figures = metrics.language_model_metrics("g", jax.device_get(sums))
    assert figures["g_accuracy"] == 0.0 and figures["g_accuracy_baseline"] == 0.5
    assert figures["g_loss"] == 1.0  # the mean over all four


def test_the_masked_loss_is_that_of_what_must_be_guessed():
    targets, inputs = jnp.array([[5, 5, 7, 7]]), jnp.array([[5, 4, 4, 4]])
    losses, weights = jnp.array([[9.0, 2.0, 5.0, 9.0]]), jnp.array([[1.0, 1.0, 1.0, 0.0]])
    sums = jax.device_get(
        metrics.language_model_sums("g", losses, inputs, targets, weights, 9, inputs)
    )
    assert metrics.language_model_metrics("g", sums)["g_masked_loss"] == 3.5
    figures = metrics.language_model_metrics("g", sums, unigram_entropy=6.0)
    assert figures["g_masked_loss_baseline"] == 6.0


def test_auc_is_one_where_all_replaced_tokens_score_higher():
    low, high = np.zeros((2, metrics.AUC_BINS))
    low[3] = high[9] = 10
    assert metrics.binned_auc(low, high) == 1 and metrics.binned_auc(high, low) == 0


def test_auc_of_no_opinion_is_a_half_and_of_one_class_undefined():
    even = np.zeros(metrics.AUC_BINS)
    even[3] = 10
    assert metrics.binned_auc(even, even) == 0.5
    assert np.isnan(metrics.binned_auc(even, np.zeros_like(even)))


def test_metric_sums_add_up_over_parts(params):
    o = objective()
    prepared = prepare(o, batch())
    whole = compute(o, params, prepared)[2]
    parts = [
        compute(o, params, jax.tree.map(lambda x, half=half: x[half], prepared))[2]
        for half in (slice(0, 32), slice(32, 64))
    ]
    added = jax.tree.map(np.add, *jax.device_get(parts))
    for name, value in jax.device_get(whole).items():
        np.testing.assert_allclose(added[name], value, rtol=1e-5)


@pytest.mark.parametrize("fields", [{"mask_rate": 0.0}, {"temperature": 0.0}])
def test_senseless_settings_are_refused(fields):
    with pytest.raises(UsageError, match=f"objective.{next(iter(fields))}"):
        dataclasses.replace(ObjectiveConfig(), **fields)
