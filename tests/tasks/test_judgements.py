"""Answers beside gold ones, as the report shows them; what is confused with what."""

import pytest
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row
from electra_jax.reporting.mistakes import MOST_EXAMPLES, MOST_LABELS, mistakes
from electra_jax.tasks import find_task
from electra_jax.tasks.task import Judgement


def make_task(name, rows, **fields):
    kind = find_task(name)
    task = kind(kind.Config(**fields), TOKENIZER)
    records = [task.parse(Row("data:1", row), True) for row in rows]
    task.fit(records)
    return task, records


def test_labels_beside_gold_labels():
    rows = [{"text": "a", "b": "c", "label": "x"}, {"text": "d", "b": "e", "label": "y"}]
    task, records = make_task("classification", rows, text_b="b")
    found = task.judge([{"label": "x", "score": 0.5}, {"label": "x", "score": 0.75}], records)
    assert found == [
        Judgement("a ⏐ c", "x", "x", True, 0.5, [("x", "x")]),
        Judgement("d ⏐ e", "y", "x", False, 0.75, [("y", "x")]),
    ]


def test_numbers_are_the_worse_the_farther_off():
    rows = [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]
    task, records = make_task("regression", rows)
    near, far = task.judge([{"score": 1.5}, {"score": 4.0}], records)
    assert (near.gold, near.answer, far.certainty) == ("1", "1.5", 1.0)
    assert near.certainty == 0.25 and not near.right and not near.labels


def test_sentences_with_the_words_that_differ():
    rows = [{"w": ["a", "b", "c"], "l": ["O", "B-X", "I-X"]}, {"w": ["d"], "l": ["O"]}]
    task, records = make_task("tagging", rows, words="w", label="l")
    answers = [
        {"labels": ["O", "O", "I-X"], "scores": [0.9, 0.6, 0.8]},
        {"labels": ["O"], "scores": [0.9]},
    ]
    wrong, right = task.judge(answers, records)
    assert (wrong.text, wrong.gold, wrong.answer) == ("a b c", "b: B-X", "b: O")
    assert (wrong.certainty, wrong.right) == (0.6, False)
    assert wrong.labels == [("O", "O"), ("B-X", "O"), ("I-X", "I-X")]
    assert right == Judgement("d", "", "", True, 0.0, [("O", "O")])


def test_tasks_that_do_not_say_how_have_none():
    assert find_task("retrieval").judge(None, [], []) == []
    assert mistakes([]) is None


def test_confusions_are_counted_and_the_most_certain_mistakes_shown():
    pairs = [("a", "a")] * 8 + [("a", "b")] * 2 + [("b", "b")] * 5
    judged = [
        Judgement(str(n), gold, answer, gold == answer, n / 20, [(gold, answer)])
        for n, (gold, answer) in enumerate(pairs)
    ]
    found = mistakes(judged)
    assert (found.rows, found.wrong, found.labels) == (15, 2, ["a", "b"])
    assert [[(cell.times, cell.tint, cell.right) for cell in row] for _, row in found.table] == [
        [(8, 8, True), (2, 2, False)], [(0, 0, False), (5, 10, True)]
    ]  # fmt: skip
    assert [tuple(one) for one in found.pairs] == [("a", "b", 2, 10)]
    assert [one.text for one in found.examples] == ["9", "8"]


@pytest.mark.parametrize("labels", [MOST_LABELS, MOST_LABELS + 1])
def test_of_many_labels_only_confusions_are_shown(labels):
    judged = [
        Judgement("x" * 1000, str(n), str(m), n == m, 0.5, [(str(n), str(m))])
        for n in range(labels) for m in (n, 0)
    ]  # fmt: skip
    found = mistakes(judged)
    assert bool(found.table) == (labels <= MOST_LABELS) and len(found.pairs) <= 12
    assert len(found.examples) <= MOST_EXAMPLES and len(found.examples[0].text) == 400
