"""Labelled rows become records and examples: what is refused, what is counted, what is kept."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_encoder import TOKENIZER, WORDS

from electra_jax.data.collection import Collection, collect_pairs
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.inference.finetuned import as_row as input_row
from electra_jax.inference.finetuned import init_head
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import EncoderWithHead
from electra_jax.parallel.partition import path_name
from electra_jax.tasks import find_task
from electra_jax.tasks.question_answering import cut_windows
from electra_jax.tasks.retrieval import bm25, finds


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
    assert task.score(task.baseline(records, records), records)["f1"] == 0.75


@pytest.mark.parametrize("label", ["", " ", None])
@pytest.mark.parametrize("name", ["classification", "intent_slots"])
def test_a_blank_label_is_refused(name, label):
    fields = {"text": "good", "tokens": ["good"], "slots": ["O"], "label": label, "intent": label}
    with pytest.raises(UsageError, match="data:1: no label in column"):
        make_task(name).parse(as_row(fields), True)


def test_rows_without_a_label_are_no_class_in_training_and_validation(tmp_path, caplog):
    rows = [{"text": "good", "label": x} for x in ("x", None, float("nan"), " ", "y", "y\xa0")]
    path = write(tmp_path / "a.jsonl", *rows)
    task = make_task("classification", train=path, validation=path)
    train, validation = task.read_splits()
    assert [record.label for record in train] == ["x", "y", "y"]
    assert len(validation) == 3 and task.labels == ["x", "y"]
    assert "3 of 6 rows have no label" in caplog.text
    assert "written in several ways" in caplog.text
    assert len(task.read(path, labelled=False)) == 6  # to be answered
    task = make_task("classification", train=write(tmp_path / "b.jsonl", *rows[1:4]))
    with pytest.raises(UsageError, match="no label in column 'label', nor is one in other rows"):
        task.read_splits()


def test_labels_of_words_and_options_are_stripped_and_composed(caplog):
    fields = {"words": "a b\xa0c d", "tags": ["O", "B-cafe\u0301 ", "B-caf\u00e9"]}
    task = make_task("tagging", words="words", label="tags")
    record = task.parse(as_row(fields), True)
    assert record.words == ["a", "b\xa0c", "d"]
    assert record.labels == ["O", "B-caf\u00e9", "B-caf\u00e9"]
    assert task.written_labels(as_row(fields)) == fields["tags"]
    task = make_task("choice", text="text", options="options", label="label")
    row = {"text": "a", "options": ["x ", "cafe\u0301"], "label": "caf\u00e9"}
    record = task.parse(as_row(row), True)
    task.fit([record])
    assert task.number(record) == 1


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


def test_a_word_s_label_stands_at_its_first_piece():
    task = make_task("tagging", words="words", label="tags")
    record = task.parse(as_row({"words": "a goodly bad", "tags": "O B-x O"}), True)
    task.fit([record])
    [example] = task.examples([record], 16, True, True)
    pieces = TOKENIZER.pieces(example.tokens[0])
    assert pieces == ["[CLS]", "a", "good", "##ly", "bad", "[SEP]"]
    labels = [task.labels[i] if i >= 0 else None for i in example.targets["labels"]]
    assert labels == [None, "O", "B-x", None, "O", None]


@pytest.mark.parametrize("odd", ["X", "o", "per"])
def test_an_odd_label_among_marked_ones_is_refused(odd):
    def task(scheme):
        return make_task("tagging", words="words", label="tags", scheme=scheme)

    rows = [{"words": "good a", "tags": "B-x I-x"}, {"words": "bad a", "tags": f"{odd} O"}]
    with pytest.raises(UsageError, match=f"data:1: label '{odd}' is neither O nor marked"):
        task("auto").fit([task("auto").parse(as_row(row), True) for row in rows])
    asked = task("none")
    asked.fit([asked.parse(as_row(row), True) for row in rows])
    assert asked.labels == sorted({"B-x", "I-x", "O", odd})


def test_a_word_without_a_label_is_refused():
    row = {"words": ["good", "a"], "tags": ["O", ""]}
    with pytest.raises(UsageError, match="data:1: a word without a label in column 'tags'"):
        make_task("tagging", words="words", label="tags").parse(as_row(row), True)


@pytest.mark.parametrize("name", ["extractive_summarization", "abstractive_summarization"])
def test_a_blank_summary_is_refused(name):
    with pytest.raises(UsageError, match="data:1: no summary in column 'target'"):
        make_task(name).parse(as_row({"source": "Good.", "target": " "}), True)


def test_answers_may_be_lists_side_by_side():
    fields = {"question": "a", "context": "good bad"}
    task = make_task("question_answering")
    answers = {"text": ["bad"], "answer_start": [5]}
    assert task.parse(as_row({**fields, "answers": answers}), True).answers == [("bad", 5)]
    nowhere = [{"text": "bad", "answer_start": float("inf")}]
    with pytest.raises(UsageError, match="data:1: column 'answers' is not a list of answers"):
        task.parse(as_row({**fields, "answers": nowhere}), True)


def test_questions_of_one_id_are_said(tmp_path, caplog):
    answers = [{"id": "1", "text": "a"}, {"id": "1", "text": "b"}]
    make_task("question_answering").write(answers, [], tmp_path / "x.json")
    assert "1 questions have the id of another" in caplog.text


@pytest.mark.parametrize("value", [5, None])
def test_an_input_that_is_no_text_is_refused(value):
    with pytest.raises(UsageError, match="input 1: neither a text, a list nor an object"):
        input_row(make_task("question_answering"), value, "input 1")


def test_nothing_to_look_for_is_said():
    with pytest.raises(UsageError, match="no document has a word that BM25 can look for"):
        bm25(Collection({"q": "good"}, {"1": "the", "2": ""}, {}), 2)


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


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("choice", {"text": "good", "options": ["a", " "]}),
        ("choice", {"text": "", "options": ["a", "b"]}),
        ("question_answering", {"question": " ", "context": "good"}),
        ("question_answering", {"question": "good", "context": ""}),
    ],
)
def test_each_text_of_a_row_may_be_the_one_it_lacks(name, fields):
    task = make_task(name)
    assert task.is_empty(task.parse(as_row(fields), False))
    whole = {**dict.fromkeys(fields, "good"), "options": ["a", "b"]}
    assert not task.is_empty(task.parse(as_row(whole), False))


def test_a_document_that_is_the_query_is_no_find():
    collection = Collection({"1": "good"}, {"1": "good", "2": "bad"}, {"1": {"2": 1}})
    assert finds(collection, "1", [("1", 2.0), ("2", 1.0)], 1) == [("2", 1.0)]
    collection.documents["1"] = "bad"  # of another text, whatever its number
    assert finds(collection, "1", [("1", 2.0), ("2", 1.0)], 1) == [("1", 2.0)]


def test_retrieval_embeds_as_it_was_trained():
    published, modern = ModelConfig(), ModelConfig("modern", embedding=256)
    assert make_task("retrieval", pooling="cls").vector_pooling(modern) == "cls"
    assert make_task("reranking").vector_pooling(published) == "cls"
    assert make_task("reranking").vector_pooling(modern) == "mean"
    assert make_task("classification").vector_pooling(published) == "mean"
    known = ModelConfig(pooling="cls")
    assert make_task("retrieval").vector_pooling(known) == "cls"
    assert make_task("retrieval").vector_pooling(published) == "mean"


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "good \\ud83d", "label": "a"}\n{"text": "bad", "label": "b"}\n')
    [first, _] = make_task("classification").read(str(path))
    assert first.text == "good ?"


def test_a_query_may_have_several_answers(tmp_path):
    """None of them is a wrong one for it, nor a miss."""
    rows = [{"query": f"good {word}", "positive": f"a {word} ."} for word in WORDS]
    rows += [{"query": f"good {word}", "positive": f"bad {word} ."} for word in WORDS[:9]]
    pairs = write(tmp_path / "pairs.jsonl", *rows)
    collection = collect_pairs(map(as_row, rows), "query", "positive")
    assert len(collection.queries) == len(WORDS) and len(collection.documents) == len(rows)
    assert len(collection.relevant["q0"]) == 2
    task = make_task("reranking", train=pairs, validation=pairs)
    for pair in task.read_splits()[0]:
        word = pair.query.removeprefix("good ")
        assert len(pair.negatives) == 3
        if word in WORDS[:9]:
            assert not {f"a {word} .", f"bad {word} ."} & set(pair.negatives)
    task = make_task("retrieval", train=pairs, validation=pairs)
    train, _ = task.read_splits()
    batch = {
        "query": jnp.array([pair.query_number for pair in train[:2]]),
        "document": jnp.array([pair.document_number for pair in train[:2]]),
        "weight": jnp.ones(2),
    }
    assert train[0].query == train[1].query
    vectors = jnp.stack([jnp.eye(2), jnp.eye(2)[::-1]], axis=1)  # the other one's, each
    assert float(task.loss(vectors, batch)) == pytest.approx(0)
    batch["query"] = jnp.array([0, 1])
    assert float(task.loss(vectors, batch)) > 1


@pytest.mark.parametrize(
    ("labels", "places"), [(["2", "4"], [1, 3]), (["2", "0"], [2, 0]), (["C", "a"], [2, 0])]
)
def test_labels_of_options_are_of_one_kind(labels, places):
    task = make_task("choice")
    fields = {"text": "good", "options": ["1", "2", "3", "4"]}
    records = [task.parse(as_row({**fields, "label": label}), True) for label in labels]
    task.fit(records)
    assert [task.number(record) for record in records] == places
    wrong = records[0]._replace(label="9")
    with pytest.raises(UsageError, match="data:1: label '9' names none of 4 options"):
        task.examples([wrong], 16, True, True)


def test_rows_to_be_answered_are_never_left_out(tmp_path):
    """A submission is numbered by line."""
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\n" + "good\ta\nbad\tb\n" * 700 + "broken\n")
    task = make_task("classification")
    assert len(task.read(str(path))) == 1400
    with pytest.raises(UsageError, match="x.tsv:1402: 1 columns, where 2"):
        task.read(str(path), labelled=False)


def test_what_is_cut_is_counted(caplog):
    long = " ".join(WORDS)
    task = make_task("question_answering", question_length=4)
    fields = {"question": long, "context": "good", "answers": []}
    task.examples([task.parse(as_row(fields), True)], 24, True, True)
    assert "1 questions are cut to task.question_length=4" in caplog.text
    task = make_task("abstractive_summarization", summary_length=8)
    record = task.parse(as_row({"source": ["good"], "target": [long, "bad"]}), True)
    task.examples([record], 24, True, True)
    assert "1 summaries are cut to task.summary_length=8" in caplog.text


def test_questions_about_nothing_have_an_answer_that_json_can_write():
    task = make_task("question_answering")
    record = task.parse(as_row({"question": "good", "context": "", "answers": []}), True)
    task.fit([record])
    [example] = task.examples([record], 24, False, False)
    [answer] = task.answers([np.zeros((24, 2), np.float32)], [example], [record])
    json.dumps(answer, allow_nan=False)
    [decided] = task.calibrate([answer], [record])
    assert decided["text"] == ""


def test_the_score_of_an_answer_is_its_probability_in_its_row():
    task = make_task("question_answering", candidates=20)
    context = " ".join(WORDS[:4])
    record = task.parse(as_row({"question": "good", "context": context, "answers": []}), True)
    task.fit([record])
    [example] = task.examples([record], 24, False, False)
    output = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
    [answer] = task.answers([output], [example], [record])
    inside = np.flatnonzero(example.targets["first_character"] >= 0)
    start, end = (np.exp(output[[0, *inside], side]) for side in (0, 1))
    spans = np.outer(start / start.sum(), end / end.sum())[1:, 1:]
    assert answer["score"] == pytest.approx(np.triu(spans).max(), rel=1e-5)


def test_figures_that_the_data_cannot_give_are_left_out():
    task = make_task("classification", out_of_scope="none")
    records = [task.parse(as_row({"text": "a", "label": x}), True) for x in ("a", "b", "none")]
    task.fit(records)
    answers = [{"label": "a"}] * 2
    assert "out_of_scope_recall" in task.score([*answers, {"label": "none"}], records)
    assert "out_of_scope_recall" not in task.score(answers, records[:2])


def test_muon_takes_the_decoder_s_matrices_whole():
    """A kernel of three axes would be read as a stack of small ones."""
    task = make_task("abstractive_summarization")
    model = ModelConfig(architecture="modern", vocab_size=60, layers=1, hidden=16, heads=2,
                        intermediate=32, embedding=16)  # fmt: skip
    network = EncoderWithHead(model, task.head(model))
    shapes = jax.eval_shape(lambda key: init_head(network, task, key), jax.random.key(0))
    kernels = {
        path_name(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["head"])
        if path_name(path).endswith("kernel")
    }
    assert len(kernels) == 2 * 10 + 2
    assert all(len(shape) == 2 for shape in kernels.values()), kernels
