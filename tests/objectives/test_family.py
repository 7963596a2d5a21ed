"""The paper's family: each objective by its definition, each generator, each variant.

Most here runs operation by operation: the many networks and objectives differ, but their
operations and shapes hardly do, so that little is compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.config import load_config, pretrain_config
from electra_jax.config_files import find_config
from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.vocabulary import read
from electra_jax.objectives import find_objective, masking, objectives
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.partition import place
from electra_jax.placement import PARTITION
from electra_jax.training.optimizer import OptimizerConfig, make_optimizer
from electra_jax.training.state import TrainState
from electra_jax.training.step import make_eval_step, make_train_step

MODEL = ModelConfig(
    vocab_size=40, layers=1, hidden=16, heads=2, intermediate=32, embedding=16, max_positions=32,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
SPECIAL = SpecialTokens(0, 2, 3, 4)
FULL = {"width": 1.0, "depth": 1.0}
KEY = jax.random.key(0)


def make_batch(rows=4, length=16):
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 40, (rows, length))
    documents = np.ones((rows, length), np.int32)
    tokens[:, 0], tokens[:, 7], tokens[:, 8], tokens[:, 15] = 2, 3, 2, 3
    documents[:, 8:] = 2
    documents[-1, 12:], tokens[-1, 12:] = 0, 0
    batch = {"tokens": tokens, "documents": documents, "types": 0 * tokens}
    return {name: jnp.asarray(x, jnp.int32) for name, x in batch.items()}


BATCH = make_batch()


def build(name="electra", generator=None, continuation=None, **fields):
    kind = objectives()[name]
    electra = Electra(MODEL, GeneratorConfig(**(generator or FULL)), kind.head)
    objective = kind(ObjectiveConfig(name=name, **fields), electra, SPECIAL, continuation)
    # Away from zero, so that nothing is equal by chance.
    rng = np.random.default_rng(1)
    noisy = jax.tree.map(
        lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), init_params(electra, KEY)
    )
    return objective, noisy, objective.prepare(BATCH, KEY)


def losses(objective, params, prepared):
    return objective.losses(params, prepared, None, jnp.int32(0), False)


def corrupt(objective, params, prepared):
    return objective.corrupt(params, prepared, None, 0, False)


def apply(electra, params, *args, method):
    return electra.apply({"params": params}, *args, method=method)


def test_every_objective_is_found_by_its_name():
    names = {"electra", "electra_masked", "mlm", "replace_mlm", "all_tokens_mlm", "electric"}
    assert set(objectives()) >= names
    with pytest.raises(UsageError, match="all_tokens_mlm, electra"):
        find_objective("elektra")


@pytest.mark.slow
def test_mlm_masks_as_bert_does():
    objective, *_ = build("mlm", {"kind": "none"})
    tokens = jnp.tile(BATCH["tokens"][:1], (3000, 1))
    many = {"tokens": tokens, "documents": jnp.ones_like(tokens), "types": 0 * tokens}
    prepared = jax.jit(objective.prepare)(many, KEY)
    masked = prepared["masked"]
    counted = np.asarray(masked.weights_BN) > 0
    seen = np.asarray(masking.take(prepared["masked_tokens"], masked))[counted]
    true = np.asarray(masking.take(tokens, masked))[counted]
    assert (seen == SPECIAL.mask).mean() == pytest.approx(0.8 + 0.1 / 40, abs=0.02)
    assert (seen == true).mean() == pytest.approx(0.1 + 0.1 / 40, abs=0.02)


def test_mlm_loss_is_the_mean_cross_entropy_of_masked_positions():
    objective, params, prepared = build("mlm", {"kind": "none"})
    assert "generator" not in params
    sums, _ = losses(objective, params, prepared)
    every = jnp.broadcast_to(jnp.arange(16), (4, 16))
    rows = (prepared["masked_tokens"], BATCH["documents"], BATCH["types"])
    logits = apply(objective.electra, params, *rows, every, method="predict").whole()
    expected = 0.0
    for row, column in np.argwhere(np.asarray(prepared["masked"].weights_BN) > 0):
        position = prepared["masked"].positions_BN[row, column]
        scores = jax.nn.log_softmax(logits[row, position])
        expected -= scores[BATCH["tokens"][row, position]]
    assert float(sums["discriminator"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.slow
def test_replace_mlm_reads_samples_and_predicts_what_was_masked():
    objective, params, prepared = build("replace_mlm")
    out = corrupt(objective, params, prepared)
    assert not (np.asarray(out["corrupted"]) == SPECIAL.mask).any()
    sums, metrics = losses(objective, params, prepared)
    assert float(metrics["discriminator_count"]) == float(prepared["masked"].weights_BN.sum())
    # The main network sees the corrupted row: with other samples, another loss.
    other = {**prepared, "uniform": 1.0 - prepared["uniform"]}
    assert float(losses(objective, params, other)[0]["discriminator"]) != pytest.approx(
        float(sums["discriminator"])
    )


@pytest.mark.slow
def test_all_tokens_mlm_is_a_distribution_over_copy_and_softmax():
    objective, params, prepared = build("all_tokens_mlm")
    sums, _ = losses(objective, params, prepared)
    corrupted = corrupt(objective, params, prepared)["corrupted"]
    every = jnp.broadcast_to(jnp.arange(16), (4, 16))
    rows = (corrupted, BATCH["documents"], BATCH["types"])
    logits, copy = apply(objective.electra, params, *rows, every, method="predict")
    copy = jax.nn.sigmoid(copy)[..., None]
    probabilities = copy * jax.nn.one_hot(corrupted, 40) + (1 - copy) * jax.nn.softmax(
        logits.whole()
    )
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    chosen = jnp.take_along_axis(probabilities, BATCH["tokens"][..., None], axis=-1)[..., 0]
    expected = -(jnp.log(chosen) * (BATCH["documents"] > 0)).sum()
    assert float(sums["discriminator"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(objective.counts(prepared)["discriminator"]) == 60


@pytest.mark.slow
def test_electra_15_learns_at_masked_positions_alone():
    objective, params, prepared = build("electra_masked")
    whole, *_ = build("electra")
    out = whole.forward(params, prepared)
    chosen = np.zeros((4, 16), bool)
    for row, column in np.argwhere(np.asarray(prepared["masked"].weights_BN) > 0):
        chosen[row, prepared["masked"].positions_BN[row, column]] = True
    sign = np.where(out["replaced"], -1.0, 1.0)
    expected = np.logaddexp(0.0, sign * np.asarray(out["discriminator_logits"]))[chosen].sum()
    sums, _ = losses(objective, params, prepared)
    assert float(sums["discriminator"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(objective.counts(prepared)["discriminator"]) == chosen.sum()


@pytest.mark.slow
def test_no_tower_sees_the_token_it_predicts():
    electra = Electra(MODEL, GeneratorConfig(kind="two_tower", **FULL))
    params = init_params(electra, KEY)
    every = jnp.broadcast_to(jnp.arange(16), (4, 16))

    def logits(tokens):
        rows = (tokens, BATCH["documents"], BATCH["types"])
        return apply(electra, params, *rows, every, method="generate").whole()

    before = logits(BATCH["tokens"])
    after = logits(BATCH["tokens"].at[:, 4].set(9))
    changed = np.abs(np.asarray(before - after))[:-1].max(axis=(0, 2)) > 1e-6
    # All others of its document, on both sides, do; the next document does not.
    assert changed.tolist() == [True] * 4 + [False] + [True] * 3 + [False] * 8


@pytest.mark.slow
def test_electric_is_noise_contrastive_estimation():
    temperature = 1.5
    objective, params, prepared = build(
        "electric", {"kind": "two_tower", **FULL}, temperature=temperature
    )
    every = jnp.broadcast_to(jnp.arange(16), (4, 16))
    rows = (BATCH["documents"], BATCH["types"])
    noise = apply(objective.electra, params, BATCH["tokens"], *rows, every, method="generate")
    _, metrics = losses(objective, params, prepared)
    # Put the samples where the objective puts them, from what its loss says of them.
    masked = prepared["masked"]
    samples = read(noise.take(masked.positions_BN), prepared["uniform"], temperature).sample
    noised = np.array(BATCH["tokens"])
    is_noise = np.zeros((4, 16), bool)
    for row, column in np.argwhere(np.asarray(masked.weights_BN) > 0):
        position = masked.positions_BN[row, column]
        noised[row, position] = samples[row, column]
        is_noise[row, position] = True
    noised = jnp.asarray(noised)
    energy = apply(objective.electra, params, noised, *rows, method="discriminate")
    q = np.asarray(jax.nn.softmax(noise.whole() / temperature))
    q = np.take_along_axis(q, noised[..., None], -1)[..., 0]
    p_hat = np.exp(-np.asarray(energy))
    share = 0.15
    is_data = (1 - share) * p_hat / ((1 - share) * p_hat + share * q)
    terms = np.where(is_noise, -np.log(1 - is_data), -np.log(is_data))
    real = np.asarray(BATCH["documents"]) > 0
    assert float(metrics["discriminator_loss"]) == pytest.approx(float(terms[real].sum()), rel=1e-4)

    def noise_loss(params):
        return losses(objective, params, prepared)[0]["discriminator"]

    gradient = jax.grad(noise_loss)(params)["generator"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", ["uniform", "unigram"])
def test_generators_without_a_network(kind):
    objective, params, prepared = build(generator={"kind": kind})
    out = objective.forward(params, prepared)
    logits = np.asarray(out["generator_logits"].whole())
    assert (logits == logits[:1, :1]).all()
    assert ("generator" in params) == (kind == "unigram")
    assert np.isfinite(float(losses(objective, params, prepared)[0]["discriminator"]))


@pytest.mark.slow
def test_one_encoder_for_both_networks():
    objective, params, prepared = build(generator={"share": "all", **FULL})
    assert "encoder" not in params["generator"]

    def generator_loss(params):
        return losses(objective, params, prepared)[0]["generator"]

    gradient = jax.grad(generator_loss)(params)["discriminator"]["encoder"]
    assert all(np.any(leaf) for name, leaf in gradient["layer_0"]["wide"].items())
    with pytest.raises(UsageError, match="one transformer for both"):
        GeneratorConfig(share="all")


@pytest.mark.slow
def test_disentangled_embeddings_get_no_gradient_from_the_discriminator():
    objective, params, prepared = build(generator={"share": "disentangled", **FULL})

    def discriminator_loss(params):
        return losses(objective, params, prepared)[0]["discriminator"]

    gradient = jax.grad(discriminator_loss)(params)
    assert not np.any(gradient["embeddings"]["word"])
    assert np.any(gradient["embedding_delta"])
    electra = objective.electra
    fresh = init_params(electra, KEY)
    assert not np.any(fresh["embedding_delta"])


def test_temperature_falls():
    objective, *_ = build(temperature=2.0, final_temperature=1.0, temperature_steps=100)
    steps = jnp.array([0, 100, 10_000])
    np.testing.assert_allclose(objective.temperature(steps), [2.0, 1 + np.exp(-1), 1.0], rtol=1e-5)


def test_whole_words_are_masked_together():
    continuation = np.arange(40) >= 20
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 40, (500, 32))
    tokens[:, 0], tokens[:, -1] = 2, 3
    documents = np.ones_like(tokens)
    documents[:, 16:] = 2
    masked = jax.jit(masking.choose_positions, static_argnums=(3, 4))(
        KEY, tokens, documents, 0.3, SPECIAL, continuation
    )
    masked = jax.device_get(masked)
    counted = 0
    for row in range(500):
        chosen = np.zeros(32, bool)
        chosen[masked.positions_BN[row][masked.weights_BN[row] > 0]] = True
        starts = ~(continuation[tokens[row]] & (tokens[row] >= 5))
        starts[[0, 1, 16, 31]] = True
        words = np.split(np.arange(32), np.flatnonzero(starts)[1:])
        parts = [chosen[word].mean() for word in words if chosen[word].any()]
        # Only a word that is longer than the number is cut, and is alone then.
        assert min(parts) == 1 or len(parts) == 1
        counted += chosen.sum()
        assert 1 <= chosen.sum() <= round(0.3 * 32)
    assert counted / (500 * round(0.3 * 32)) > 0.7


@pytest.mark.slow
def test_frozen_parameters_stay():
    config = OptimizerConfig(frozen="^generator", warmup_steps=1, schedule="constant")
    _, params, _ = build()
    optimizer = make_optimizer(config)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(
        grads, optimizer.init(params), params, step=jnp.int32(5), progress=jnp.float32(0.5)
    )
    assert not any(np.any(x) for x in jax.tree.leaves(updates["generator"]))
    assert all(np.any(x) for x in jax.tree.leaves(updates["discriminator"]))


def variants():
    path = find_config("pretrain/family")
    namespace = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    return sorted(namespace["VARIANTS"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", variants())
def test_every_variant_trains_every_parameter(variant):
    """A variant whose objective, generator and optimizer do not fit, or that leaves some out."""
    fields = [
        "model.vocab_size=40", "model.layers=1", "model.hidden=16", "model.heads=2",
        "model.intermediate=32", "model.embedding=16", "optimizer.warmup_steps=1",
        "train.batch_size=4",
    ]  # fmt: skip
    config = pretrain_config(load_config(f"pretrain/family:{variant}", fields))
    kind = objectives()[config.objective.name]
    objective = kind(config.objective, config.electra, SPECIAL, np.arange(40) >= 30)
    optimizer = make_optimizer(config.optimizer)
    params = init_params(config.electra, KEY)
    sums = jax.eval_shape(make_eval_step(objective), params, BATCH, KEY)
    # Not at step 0, whose learning rate is zero.
    state = TrainState.create(params, optimizer, sums).replace(step=jnp.int32(1))
    after = make_train_step(objective, optimizer)(state, BATCH, KEY, jnp.float32(0.1))
    metrics = objective.summarise(jax.device_get(after.metric_sums))
    # The AUC of so few tokens may have one class alone.
    assert all(np.isfinite(x) for name, x in metrics.items() if "auc" not in name), metrics
    still = jax.tree_util.tree_map_with_path(
        lambda path, a, b: jax.tree_util.keystr(path) if np.array_equal(a, b) else None,
        state.params, after.params,
    )  # fmt: skip
    still = [name for name in jax.tree.leaves(still) if name]
    frozen = config.optimizer.frozen
    assert all("generator" in name for name in still) if frozen else not still, still
    assert place(state.params, PARTITION, make_mesh(MeshConfig()))[1] == []
