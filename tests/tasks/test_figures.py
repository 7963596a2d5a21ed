"""Figures are those of the well-kept libraries, and of what the official code says."""

import json

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from electra_jax.finetuning.objective import layer_scale
from electra_jax.tasks.answer_metrics import best_of, exact_match, token_f1
from electra_jax.tasks.classification import (
    Classification,
    ClassificationConfig,
    Record,
    Regression,
    RegressionConfig,
)
from electra_jax.tasks.label_schemes import guess_scheme, spans, to_bio
from electra_jax.tasks.ranking import ranking_metrics


def test_rankings_are_judged_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    rankings, relevant, expected = {}, {}, []
    for query in range(20):
        grades = rng.integers(0, 4, 30)
        grades[rng.permutation(30)[:15]] = 0
        grades[0] = 1
        scores = rng.permutation(30).astype(float)
        order = np.argsort(-scores)
        rankings[str(query)] = [(str(i), scores[i]) for i in order]
        relevant[str(query)] = {str(i): int(g) for i, g in enumerate(grades) if g}
        expected.append(ndcg_score(grades[None], scores[None], k=10))
    figures = ranking_metrics(rankings, relevant)
    assert figures["ndcg@10"] == pytest.approx(np.mean(expected))
    assert figures["recall@100"] == 1.0


def test_a_query_without_a_ranking_scores_nothing():
    figures = ranking_metrics({"a": [("1", 2.0)]}, {"a": {"1": 1}, "b": {"2": 1}})
    assert figures == {"ndcg@10": 0.5, "mrr@10": 0.5, "recall@10": 0.5, "recall@100": 0.5}


@pytest.mark.parametrize(
    ("guess", "truths", "exact", "f1"),
    [
        ("The  Cat.", ["cat"], 1, 1),
        ("a black cat", ["cat"], 0, 2 / 3),
        ("black cat", ["dog", "cat"], 0, 2 / 3),
        ("cat cat dog", ["cat cat"], 0, 4 / 5),
        ("", [], 1, 1),
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 1),  # nothing is left of either
    ],
)
def test_answers_are_judged_as_the_official_evaluation_does(guess, truths, exact, f1):
    assert best_of(exact_match, guess, truths) == exact
    assert best_of(token_f1, guess, truths) == pytest.approx(f1)


@pytest.mark.full
def test_answers_are_judged_as_torchmetrics_does(electra_data):
    """On SQuAD's own answers, and guesses that are spans around them."""
    squad = pytest.importorskip("torchmetrics.functional.text").squad
    rng = np.random.default_rng(0)
    [path] = (electra_data / "eval" / "squad").glob("dev-v1.1*.json")
    judged, total = 0, 0
    for article in json.loads(path.read_text("utf-8"))["data"][::4]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = {
                    key: [a[key] for a in question["answers"]] for key in ("text", "answer_start")
                }
                start = max(0, answers["answer_start"][0] + int(rng.integers(-12, 4)))
                end = start + len(answers["text"][0]) + int(rng.integers(0, 20))
                guess = (
                    paragraph["context"][start:end] if rng.random() < 0.7 else answers["text"][-1]
                )
                theirs = squad(
                    {"prediction_text": guess, "id": "0"}, {"answers": answers, "id": "0"}
                )
                ours = [100 * best_of(f, guess, answers["text"]) for f in (exact_match, token_f1)]
                assert ours == pytest.approx([float(theirs["exact_match"]), float(theirs["f1"])])
                judged, total = judged + 1, total + ours[1]
    assert judged > 500 and 20 < total / judged < 95  # neither all wrong nor all right


@pytest.mark.parametrize(
    ("labels", "scheme", "bio"),
    [
        ("B-x I-x O B-y B-y", "BIO", "B-x I-x O B-y B-y"),
        ("I-x I-x O I-y B-y", "IOB1", "B-x I-x O B-y B-y"),
        ("B-x E-x O S-y S-y", "BIOES", "B-x I-x O B-y B-y"),
        ("I-x I-x O I-y I-z", "IO", "B-x I-x O B-y B-z"),
        ("x x O y y", "IO", "B-x I-x O B-y I-y"),
        ("DET NOUN VERB", "none", "DET NOUN VERB"),
        ("MISC-law MISC-law O ART-law", "IO", "B-MISC-law I-MISC-law O B-ART-law"),
    ],
)
def test_schemes_are_told_and_become_bio(labels, scheme, bio):
    assert guess_scheme([labels.split()]) == scheme
    assert to_bio(labels.split(), scheme) == bio.split()


def test_spans_of_bio_labels():
    found = spans(["a", "b", "c", "d", "e"], ["I-x", "I-x", "B-x", "I-y", "O"])
    assert [(s["kind"], s["text"]) for s in found] == [("x", "a b"), ("x", "c"), ("y", "d")]


def test_layers_learn_slower_the_deeper_they_lie():
    """With the official code's exponents: head 0, top layer 2, embeddings n + 2."""
    scale = layer_scale(0.8, 12)
    assert scale("head/classifier/kernel") == 1
    assert scale("encoder/layer_11/wide/kernel") == pytest.approx(0.8**2)
    assert scale("encoder/layer_0/wide/kernel") == pytest.approx(0.8**13)
    assert scale("embeddings/word") == pytest.approx(0.8**14)
    assert scale("encoder/embeddings_project/kernel") == pytest.approx(0.8**14)


def records(labels):
    return [Record("data", "a text", None, label) for label in labels]


def test_labels_are_judged_as_by_hand():
    """F1 is of the last label; one row of it in three is missed, and none is wrong."""
    task = Classification(ClassificationConfig(), None)
    truth = records(["no", "yes", "yes", "yes"])
    task.fit(truth)
    figures = task.score([{"label": guess} for guess in ("no", "no", "yes", "yes")], truth)
    assert figures == pytest.approx(
        {"accuracy": 3 / 4, "f1": 4 / 5, "macro_f1": (4 / 5 + 2 / 3) / 2, "matthews": 12**-0.5 * 2}
    )


def test_numbers_are_judged_as_by_hand():
    """In the right order, and not on a line; scores are on the scale of the labels."""
    task = Regression(RegressionConfig(scale=4.0), None)
    truth = records([0.0, 1.0, 2.0, 3.0])
    answers = task.answers(np.array([[0.0], [0.25], [1.0], [2.25]]), [], truth)
    assert [answer["score"] for answer in answers] == [0, 1, 4, 9]
    figures = task.score(answers, truth)
    assert figures == pytest.approx(
        {"spearman": 1.0, "pearson": 15 / (5 * 49) ** 0.5, "r2": 1 - 40 / 5}
    )
