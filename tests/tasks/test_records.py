"""Labelled rows become records and examples: what is refused, what is counted, what is kept."""

import itertools
import json

import pytest
from tiny_encoder import TOKENIZER, WORDS

from electra_jax.config import find_task
from electra_jax.data.collection import Collection
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.tasks.question_answering import cut_windows
from electra_jax.tasks.retrieval import finds


def make_task(name, **fields):
    kind = find_task(name)
    return kind(kind.Config(**fields), TOKENIZER)


def as_row(fields):
    return Row("data:1", fields)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("size", "room", "stride"), [(0, 5, 128), (5, 5, 2), (111, 110, 128), (300, 50, 20), (9, 1, 1)]
)
def test_windows_leave_no_gap(size, room, stride):
    windows = [range(size)[window] for window in cut_windows(size, room, stride)]
    assert {place for window in windows for place in window} == set(range(size))
    assert all(0 < len(window) <= room for window in windows) or size == 0
    overlaps = (first.stop > second.start for first, second in itertools.pairwise(windows))
    assert room == 1 or all(overlaps)


def test_every_answer_of_a_long_text_is_whole_in_a_row():
    context = " ".join(WORDS)
    task = make_task("question_answering")
    for word in WORDS:
        answers = [{"text": f" {word} ", "answer_start": f" {context} ".index(f" {word} ") - 1}]
        row = {"question": "a", "context": context, "answers": answers}
        if context.startswith(word):
            answers[0] = {"text": f"{word} ", "answer_start": 0}
        record = task.parse(as_row(row), True)
        assert record.answers == [(word, context.index(word))]
        examples = task.examples([record], 24, True, True)
        starts = [example for example in examples if example.targets["start"] > 0]
        assert starts
        for example in starts:
            [tokens] = example.tokens
            assert TOKENIZER.pieces([tokens[example.targets["start"]]]) == [word]


def test_answers_longer_than_a_row_are_said(caplog):
    context = " ".join(WORDS)
    task = make_task("question_answering")
    row = {"question": "a", "context": context, "answers": [{"text": context, "answer_start": 0}]}
    task.examples([task.parse(as_row(row), True)], 24, True, True)
    assert "1 answers are whole in no row of train.length=24 (the first: data:1)" in caplog.text


def test_a_blank_answer_is_none():
    row = {"question": "a", "context": "good", "answers": [{"text": " ", "answer_start": 0}]}
    assert make_task("question_answering").parse(as_row(row), True).answers == []


def test_nothing_to_train_on_is_refused():
    task = make_task("question_answering")
    row = {"question": "a", "context": "good", "answers": [{"text": "bad", "answer_start": 0}]}
    with pytest.raises(UsageError, match="no answer is in its context .*data:1"):
        task.examples([task.parse(as_row(row), True)], 24, True, True)


def test_no_threshold_parts_equal_margins():
    """All equal margins: all are answered, or none."""
    task = make_task("question_answering")
    rows = [
        {"question": "a", "context": "good", "answers": [{"text": "good", "answer_start": 0}]},
        *[{"question": "a", "context": "good", "answers": []}] * 3,
    ]
    records = [task.parse(as_row(row), True) for row in rows]
    task.fit(records)
    assert task.score(task.trivial(records, records), records)["f1"] == 0.75


@pytest.mark.parametrize("label", ["", " ", None])
@pytest.mark.parametrize("name", ["classification", "intent_slots"])
def test_a_blank_label_is_refused(name, label):
    fields = {"text": "good", "tokens": ["good"], "slots": ["O"], "label": label, "intent": label}
    with pytest.raises(UsageError, match="data:1: no label in column"):
        make_task(name).parse(as_row(fields), True)


def test_a_label_that_is_held_out_whole_is_in_the_label_set(tmp_path):
    rows = [{"text": f"{word} good", "label": word} for word in WORDS[:40]]
    task = make_task("classification", train=write(tmp_path / "x.jsonl", *rows))
    train, validation = task.read_splits()
    assert {record.label for record in validation} - {record.label for record in train}
    assert task.examples(validation, 16, True, False)


def test_words_and_labels_may_be_texts():
    task = make_task("tagging", words="words", label="tags")
    record = task.parse(as_row({"words": "good a bad", "tags": "O O B-x"}), True)
    assert record.labels == ["O", "O", "B-x"]


@pytest.mark.parametrize("name", ["extractive_summarization", "abstractive_summarization"])
def test_a_source_may_be_a_text(name):
    fields = {"source": "Good is bad. Is it? A good one!", "target": "good"}
    record = make_task(name).parse(as_row(fields), True)
    assert record.sentences == ["Good is bad.", "Is it?", "A good one!"]


def test_labels_of_sentences():
    task = make_task("extractive_summarization", label="labels")
    fields = {"source": ["a", "b"], "target": "good", "labels": [True, 0]}
    assert task.parse(as_row(fields), True).labels == [1, 0]
    with pytest.raises(UsageError, match="data:1: the label of a sentence is 0 or 1, not '-1'"):
        task.parse(as_row({**fields, "labels": [-1, 0]}), True)


def test_rows_without_text_are_said_wherever_they_are(tmp_path, caplog):
    rows = [{"query": f"{word} good", "positive": word} for word in WORDS]
    pairs = write(tmp_path / "pairs.jsonl", *rows, {"query": "good", "positive": " "})
    make_task("retrieval", train=pairs).read_splits()
    assert "1 rows have no text" in caplog.text
    caplog.clear()
    texts = [{"text": word, "label": str(place % 2)} for place, word in enumerate(WORDS)]
    blank = [{"text": " " * place, "label": "0"} for place in range(30)]
    make_task("classification", train=write(tmp_path / "x.jsonl", *texts, *blank)).read_splits()
    assert "30 rows have no text" in caplog.text


def test_a_document_that_is_the_query_is_no_find():
    collection = Collection({"1": "good"}, {"1": "good", "2": "bad"}, {"1": {"2": 1}})
    assert finds(collection, "1", [("1", 2.0), ("2", 1.0)], 1) == [("2", 1.0)]
    collection.documents["1"] = "bad"  # of another text, whatever its number
    assert finds(collection, "1", [("1", 2.0), ("2", 1.0)], 1) == [("1", 2.0)]


def test_retrieval_embeds_as_it_was_trained():
    assert make_task("retrieval", pooling="cls").vector_pooling == "cls"
    assert make_task("classification").vector_pooling == "mean"


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "good \\ud83d", "label": "a"}\n{"text": "bad", "label": "b"}\n')
    [first, _] = make_task("classification").read(str(path))
    assert first.text == "good ?"
