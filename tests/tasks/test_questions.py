"""Answers are found in their contexts and given back whole; what cannot be shown is counted."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row, read_rows
from electra_jax.errors import UsageError
from electra_jax.tasks import find_task
from electra_jax.tasks.answer_metrics import best_of, exact_match, token_f1
from electra_jax.tasks.answer_spans import answer_text


def make_task(**fields):
    kind = find_task("question_answering")
    return kind(kind.Config(**fields), TOKENIZER)


def as_record(task, context, *answers, question="a", labelled=True):
    found = [{"text": text, "answer_start": start} for text, start in answers]
    fields = {"question": question, "context": context, "answers": found}
    return task.parse(Row("data:1", fields), labelled)


def given_back(task, context, answer, start=None):
    """What comes back where a model points at what it was trained on."""
    place = context.index(answer) if start is None else start
    record = as_record(task, context, (answer, place))
    task.fit([record])
    [example] = task.examples([record], 64, True, True)
    first, last = int(example.targets["start"]), int(example.targets["end"])
    assert 0 < first <= last
    output = np.full((64, 2), -9.0, np.float32)
    output[first, 0] = output[last, 1] = 9
    [found] = task.answers([output], [example], [record])
    assert found["text"] == answer_text(context, example, first, last)
    return found["text"]


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        (unicodedata.normalize("NFD", "good café."), unicodedata.normalize("NFD", "good café")),
        ("a bad Alien\u200b. good", "Alien\u200b"),
        ("a bad \u200eAlien. good", "\u200eAlien"),
        ("good สวัสดี bad", "สวัสดี"),
        ("good बिल्ली। bad", "बिल्ली"),
        ("good bad", "good"),
        ("good\u200bbad a", "good\u200bbad"),
        ("a good\x01\x02 bad", "good\x01\x02"),
        ("a cafe\u0301\u200d\ufe0f", "cafe\u0301\u200d\ufe0f"),
    ],
)
def test_characters_that_the_tokenizer_drops_belong_to_an_answer(context, answer):
    assert given_back(make_task(), context, answer) == answer


WORDS = st.text("ab猫é\u0301\u0e31\u0e27\u200b\u200d\ufeff\x01", min_size=1, max_size=5).filter(
    lambda word: (
        any(unicodedata.category(c)[0] == "L" for c in word)
        and unicodedata.category(word[0])[0] != "M"
    )
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(WORDS, min_size=1, max_size=6), st.data())
def test_words_of_any_text_are_given_back_whole(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    context, answer = " ".join(words), " ".join(words[first : last + 1])
    start = len(" ".join([*words[:first], ""]))
    assert given_back(make_task(), context, answer, start) == answer


def test_what_the_model_points_at_is_not_stretched_over_letters():
    task = make_task()
    assert given_back(task, "good\u200bly a", "good") == "good"
    assert given_back(task, "good\u200bly a", "ly") == "ly"
    assert given_back(task, "a good . bad", "good") == "good"


def test_any_of_several_answers_that_is_in_the_context_is_used(caplog):
    task = make_task()
    answers = [("bad", 0), ("good", -5), ("bad", 7)]
    [example] = task.examples([as_record(task, "a good bad", *answers)], 24, True, True)
    [tokens] = example.tokens
    assert TOKENIZER.pieces([tokens[example.targets["start"]]]) == ["bad"]
    assert not caplog.text


def test_an_answer_without_a_token_is_counted(caplog):
    task = make_task()
    records = [as_record(task, "a \u200b\u200b bad", ("\u200b", 2)), as_record(task, "a", ("a", 0))]
    assert len(task.examples(records, 24, True, True)) == 1
    assert "1 answers have nothing in them that the tokenizer keeps (the first: data:1)" in (
        caplog.text
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_a_question_without_answers_is_not_one_without_an_answer(tmp_path, labelled):
    question = {"id": 1, "question": "a", "answer": [{"text": "good", "answer_start": 0}]}
    impossible = {"id": 2, "question": "a", "is_impossible": True}
    paragraph = {"context": "good", "qas": [impossible, question]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    rows = list(read_rows(str(path)))
    task = make_task()
    assert task.parse(rows[0], True).answers == []
    if labelled:
        with pytest.raises(UsageError, match="question 1: no column 'answers'"):
            task.parse(rows[1], True)
    else:
        assert task.parse(rows[1], False).question == "a"


@pytest.mark.parametrize("id", [{}, {"id": None}])
def test_a_question_without_an_identifier_is_known_by_its_line(id):
    row = Row("data:7", {"question": "a", "context": "good", **id})
    assert make_task().parse(row, False).id == "data:7"


@pytest.mark.parametrize(("mark", "count"), [(True, 0), ("True", 0), (1, 0), ("False", 1), (0, 1)])
def test_is_impossible_is_read_in_rows_too(mark, count):
    fields = {
        "question": "a", "context": "good", "is_impossible": mark,
        "answers": {"text": ["good"], "answer_start": [0]},
    }  # fmt: skip
    assert len(make_task().parse(Row("data:1", fields), True).answers) == count


def test_one_long_question_is_cut_and_counted(caplog):
    """It takes half of its row; the others are answered as they were."""
    task = make_task(question_length=64)
    records = [
        as_record(task, "good bad", question=question, labelled=False)
        for question in ("a", "a good " * 100, "bad")
    ]
    task.fit(records)
    examples = task.examples(records, 24, False, False)
    assert [example.record for example in examples] == [0, 1, 2]
    assert all(len(row) <= 24 for example in examples for row in example.tokens)
    assert list(task.cut.items()) == [
        ("questions are cut to 10 tokens, half of train.length=24", 1)
    ]
    assert not caplog.text
    task.examples(records, 24, True, False)
    assert "1 questions are cut to 10 tokens" in caplog.text


def test_rows_of_one_title_cannot_be_split(tmp_path):
    row = {"question": "a", "title": "export", "answers": []}
    lines = [json.dumps({**row, "context": f"good {n}"}) + "\n" for n in range(40)]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(lines))
    with pytest.raises(UsageError, match=r"rows of one title .* are held out together, and .* 1 "):
        make_task(train=str(path)).read_splits()
    path.write_text("".join(lines).replace('"export"', '""'))
    assert all(make_task(train=str(path)).read_splits())


@pytest.mark.parametrize(
    ("guess", "truth", "exact", "f1"),
    [
        ("红楼梦", "红楼梦前", 0, 6 / 7),
        ("ロンドン市", "ロンドン", 0, 8 / 9),
        ("कुत्ता घर", "कुत्ता", 0, 2 / 3),
        ("Alien\u200b", "alien", 1, 1),
        ("cafe\u0301", "café", 1, 1),
        ("Лондон", "Лондон город", 0, 2 / 3),
    ],
)
def test_f1_counts_characters_where_words_have_no_spaces(guess, truth, exact, f1):
    """Otherwise it would be exact match by another name."""
    assert best_of(exact_match, guess, [truth]) == exact
    assert best_of(token_f1, guess, [truth]) == pytest.approx(f1)


def test_the_baseline_finds_sentences_in_any_script():
    task = make_task()
    record = as_record(task, "猫睡了。狗在花园里跑。下雨了。", question="狗在哪里跑")
    assert task.baseline([], [record])[0]["text"] == "狗在花园里跑。"
