"""Scores of sentences, beside those computed token by token, and the accuracy on pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import PUBLISHED, TOKENIZER, make_params

from electra_jax.config import PretrainConfig, build_objective
from electra_jax.data.minimal_pairs import MinimalPair
from electra_jax.data.sampler import DataConfig
from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import PretrainedModel
from electra_jax.inference.scoring import PairSet, encode_sentences, make_score
from electra_jax.models.electra import GeneratorConfig
from electra_jax.objectives import find_objective
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masked_lm import MaskedLM
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.parallel.partition import place
from electra_jax.placement import pretraining_rules

MODEL = dataclasses.replace(PUBLISHED[0], layers=1, dropout=0.0, attention_dropout=0.0)
TEXTS = ["the cat eat .", "the dog eat .", "dogs"]
KINDS = {"mlm": "none", "electric": "two_tower"}


def make_model(name):
    generator = GeneratorConfig(kind=KINDS.get(name, "transformer"), width=1.0)
    config = PretrainConfig(
        model=MODEL, generator=generator, data=DataConfig(length=16),
        objective=ObjectiveConfig(name=name),
    )  # fmt: skip
    params = make_params(MODEL, generator, head=find_objective(name).head)
    return PretrainedModel(config, jax.tree.map(jnp.asarray, params), TOKENIZER, step=0)


def by_hand(model, text):
    """The score of a text without padding, operation by operation, one token after another."""
    name, [ids] = model.config.objective.name, TOKENIZER.encode([text])
    row = np.array([[TOKENIZER.cls_id, *ids, TOKENIZER.sep_id]])
    ones, electra = np.ones_like(row), model.config.electra

    def apply(method, tokens, *positions):
        rows = (tokens, ones, 0 * ones, *positions)
        return electra.apply({"params": model.params}, *rows, method=method)

    def term(index):
        logits = apply("discriminate", row)[0, index] if electra.head == "detector" else None
        if name == "electric":
            return -logits
        if logits is not None:
            return np.log(1 - 1 / (1 + np.exp(-np.float64(logits))))
        position, seen = np.array([[index]]), row.copy()
        seen[0, index] = TOKENIZER.mask_id
        if name != "mlm":
            seen[0, index] = apply("generate", seen, position).whole()[0, 0].argmax()
        output = apply("predict", seen, position)
        if name != "all_tokens_mlm":
            return jax.nn.log_softmax(output.whole()[0, 0])[row[0, index]]
        probability = jax.nn.softmax(output[0].whole()[0, 0])[row[0, index]]
        copy = jax.nn.sigmoid(output[1][0, 0])
        return np.log(copy * (seen == row)[0, index] + (1 - copy) * probability)

    return float(sum(term(index) for index in range(1, row.shape[1] - 1)))


@pytest.fixture(scope="module", params=[
    "electra", pytest.param("electra_masked", marks=pytest.mark.slow), "mlm",
    pytest.param("replace_mlm", marks=pytest.mark.slow), "all_tokens_mlm", "electric",
])  # fmt: skip
def model(request):
    return make_model(request.param)


def test_a_score_is_the_sum_over_tokens_however_it_is_batched(model):
    expected = [by_hand(model, text) for text in TEXTS]
    assert len(set(np.round(expected, 3))) == len(TEXTS)
    # In one batch of several lengths, the short ones padded, and alone.
    np.testing.assert_allclose(model.score(TEXTS), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.score(TEXTS[2:]), expected[2:], rtol=1e-4, atol=1e-4)
    assert model.score([]) == []


def pair(good, bad, paradigm="a", phenomenon="x", where="pairs.jsonl:1"):
    return MinimalPair(good, bad, paradigm, phenomenon, where)


def test_the_headline_is_the_mean_over_paradigms():
    pairs = [
        pair("the cat", "cat the"),
        pair("the dog", "dog the"),
        pair("the cat", "dog the", "b", "y"),
        pair("The CAT", "the cat", "c", "y"),  # the same to an uncased tokenizer
    ]
    found = PairSet.encode(pairs, TOKENIZER, 14, 4)
    good, bad = np.split(found.sentences.rows_S, 2)
    assert good[3] == bad[3] == good[0] and found.sentences.batches.size == 4
    # The first good sentence is worse, the second better by rounding alone.
    scores = np.array([2.0, 1 + 2e-7, 1, 5, 3, 1, 0, 5])
    accuracy = found.accuracy(scores)
    assert {name: group.accuracy for name, group in accuracy.paradigms.items()} == {
        "a": 0.25, "b": 1.0, "c": 0.5
    }  # fmt: skip
    assert accuracy.mean == pytest.approx(7 / 12) and accuracy.ties == 2 and accuracy.pairs == 4
    assert accuracy.phenomena == {"x": (1, 0.25), "y": (2, 0.75)}
    assert accuracy.record["paradigms"]["b"] == {"phenomenon": "y", "pairs": 1, "accuracy": 1.0}
    assert accuracy.metrics == {"minimal_pairs": accuracy.mean, "minimal_pairs_baseline": 0.5}


def test_scores_of_pairs_reach_the_accuracy():
    model = make_model("electra")
    texts = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])]
    accuracy = model.pair_accuracy([pair(*texts[0], "a"), pair(*texts[1], "b")])
    for (good, bad), group in zip(texts, accuracy.paradigms.values(), strict=True):
        assert group.accuracy == (by_hand(model, good) > by_hand(model, bad))


@pytest.mark.parametrize(
    ("text", "message"),
    [("the " * 15, "there: the text has 15 tokens, the model was trained on 14"),
     (" ", "there: the text is empty")],
)  # fmt: skip
def test_a_sentence_that_does_not_fit_is_named(text, message):
    with pytest.raises(UsageError, match=message):
        encode_sentences(["the", text], ["here", "there"], TOKENIZER, 14, 2)


def test_a_model_without_the_head_is_refused():
    model = make_model("electra")
    del model.params["discriminator"]["classifier"]
    with pytest.raises(UsageError, match="lacks what objective.name=electra .*classifier"):
        model.score(TEXTS)


def test_an_objective_need_not_have_scores(monkeypatch):
    model = make_model("mlm")
    monkeypatch.delattr("electra_jax.objectives.masked_lm.TokenPrediction.score_tokens")
    assert issubclass(MaskedLM, find_objective("mlm"))
    with pytest.raises(UsageError, match="objective.name=mlm does not score sentences"):
        model.score(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["electra", "replace_mlm"])
def test_scores_are_the_same_on_any_mesh(name):
    model = make_model(name)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    shardings, _ = place(model.params, pretraining_rules(2, mesh), mesh)
    params = jax.tree.map(jax.device_put, model.params, shardings)
    sentences = encode_sentences(TEXTS, TEXTS, TOKENIZER, 14, 4)
    score = make_score(build_objective(model.config, TOKENIZER), mesh)
    np.testing.assert_allclose(score(params, sentences), model.score(TEXTS), rtol=1e-4)
