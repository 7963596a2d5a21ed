"""Every task learns: 64 rows, by heart, through the whole of a fine-tuning run."""

import json

import numpy as np
import pytest
from tiny_encoder import WORDS, make_model

from electra_jax.config import finetune_config, load_config
from electra_jax.finetuning.finetune import finetune
from electra_jax.training.metrics import read_metrics

ROWS = 64


def sentence(rng, count=6):
    return [str(word) for word in rng.choice(WORDS, count)]


def labelled_texts(rng):
    for _ in range(ROWS):
        yield {"text": " ".join(sentence(rng)), "label": str(rng.choice(["yes", "no", "so"]))}


def scored_pairs(rng):
    for _ in range(ROWS):
        yield {
            "text": " ".join(sentence(rng)), "text_b": " ".join(sentence(rng)),
            "label": float(rng.integers(6)),
        }  # fmt: skip


def tagged_words(rng):
    for number in range(ROWS):
        words = sentence(rng)
        slots = ["O", "B-x", "I-x", "O", str(rng.choice(["B-x", "B-y"])), "O"]
        yield {"tokens": words, "slots": slots, "intent": f"i{number % 3}"}


def questions(rng):
    for number in range(ROWS):
        words = sentence(rng, 12)
        context = " ".join(words)
        start = int(rng.integers(10))
        answer = " ".join(words[start : start + 2])
        possible = number % 4 > 0
        found = [{"text": answer, "answer_start": len(" ".join(words[:start])) + (start > 0)}]
        yield {
            "id": str(number), "question": " ".join(sentence(rng, 2)), "context": context,
            "answers": found if possible else [], "impossible": not possible,
        }  # fmt: skip


def candidates(rng):
    for _ in range(ROWS):
        options = [" ".join(sentence(rng, 3)) for _ in range(3)]
        yield {
            "text": " ".join(sentence(rng)), "options": options, "label": "ABC"[rng.integers(3)]
        }  # fmt: skip


def pairs(rng):
    for _ in range(ROWS):
        query = sentence(rng, 3)
        yield {"query": " ".join(query), "positive": " ".join([*query, *sentence(rng, 4)])}


def documents(rng):
    for _ in range(ROWS):
        sentences = [" ".join(sentence(rng, 3)) for _ in range(3)]
        yield {"source": sentences, "target": [sentences[rng.integers(3)]]}


CASES = {
    "classify": (labelled_texts, []),
    "classify:regression": (scored_pairs, ["task.text_b=text_b", "task.scale=5"]),
    "tag": (tagged_words, ["task.words=tokens", "task.label=slots"]),
    "intent_slots": (tagged_words, ["train.epochs=60"]),
    "answer": (questions, ["train.epochs=60"]),
    "answer:official": (questions, ["train.epochs=60"]),
    "choose": (candidates, []),
    "retrieve": (pairs, ["train.batch_size=32"]),
    "retrieve:rerank": (pairs, ["task.candidates=4", "task.negatives=6", "train.epochs=60"]),
    "summarize": (documents, []),
    "summarize:abstractive": (
        documents,
        ["task.summary_length=8", "task.beam=2", "train.epochs=100"]
        + ["optimizer.separate_learning_rate=5e-3"],
    ),
}


def config_of(name, data, encoder, *overrides):
    spec = f"finetune/{name}"
    fields = [
        f"init.from={encoder}", f"task.train={data}", f"task.validation={data}",
        "train.length=32", "train.epochs=40", "train.dropout=0.0", "train.layer_decay=1.0",
        "optimizer.learning_rate=5e-3", "optimizer.bias_correction=true", "train.batch_size=16",
        "optimizer.separate_learning_rate=5e-3", "train.evaluations=0.05", *overrides,
    ]  # fmt: skip
    return finetune_config(load_config(spec, fields))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    """An encoder of one layer, which is enough for all that is learnt here."""
    return make_model(tmp_path_factory.mktemp("encoder"), layers=1)


LONG = ("answer:official", "summarize:abstractive")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.full) if x in LONG else x for x in CASES]
)
def test_64_rows_are_learnt(name, shallow, one_device, tmp_path):
    make, overrides = CASES[name]
    data = tmp_path / "data.jsonl"
    rows = make(np.random.default_rng(0))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = finetune(
        config_of(name, data, shallow, *overrides, "checkpoint.every_steps=10000"),
        tmp_path / "run",
    )
    metric = results["metric"]
    figure = results["metrics"][metric]
    if name == "summarize":  # which can be no better than its sentences
        figure /= results["metrics"]["oracle_rouge1"]
    print(name, results["metrics"])
    assert figure >= 0.95, results
    # A held-out loss stands there where it is one.
    losses = [line["eval/loss"] for line in read_metrics(tmp_path / "run") if "eval/loss" in line]
    judged = name.split(":")[0] != "retrieve" and name != "summarize:abstractive"
    assert bool(losses) == judged and all(loss > 0 for loss in losses)
