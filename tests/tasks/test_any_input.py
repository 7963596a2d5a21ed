"""Whatever a row holds, a task makes records and examples of it, or refuses it in one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.tasks import find_task

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["good bad", "O", "B-x", "I-x O", "-1", "0", "猫睡了。", "cafe\u0301\u200b"]),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["text", "answer_start"]), SCALARS, max_size=2),
    st.lists(st.fixed_dictionaries({"text": SCALARS, "answer_start": SCALARS}), max_size=2),
)
ANSWERS = [{"text": "good", "answer_start": 2}]
ROWS = {  # two rows that can be learnt from
    "classification": [{"text": "a", "label": "x"}, {"text": "good", "label": "y"}],
    "regression": [{"text": "a", "label": "1"}, {"text": "good", "label": 2.5}],
    "tagging": [{"words": ["a", "good"], "tags": ["O", "B-x"]}] * 2,
    "intent_slots": [
        {"tokens": ["a", "good"], "slots": ["O", "B-x"], "intent": intent} for intent in "xy"
    ],
    "choice": [{"text": "a", "options": ["good", "bad"], "label": "A"}] * 2,
    "question_answering": [
        {"question": "a", "context": "a good", "answers": ANSWERS, "title": "", "id": 1},
        {"question": "a", "context": "a good", "answers": [], "is_impossible": True, "id": 2},
    ],
    "extractive_summarization": [{"source": ["a", "good"], "target": "good"}] * 2,
    "abstractive_summarization": [{"source": "a good", "target": ["good", "a"]}] * 2,
}
FIELDS = {"tagging": {"words": "words", "label": "tags"}}


@pytest.mark.parametrize("name", ROWS)
@QUICK
@given(data=st.data())
def test_any_rows_give_examples_or_are_refused(name, data):
    kind = find_task(name)
    fitted, fresh = (kind(kind.Config(**FIELDS.get(name, {})), TOKENIZER) for _ in range(2))
    whole = [Row("data:1", fields) for fields in ROWS[name]]
    fitted.fit([fitted.parse(row, True) for row in whole])
    changed = {
        column: data.draw(VALUES)
        for column in data.draw(st.sets(st.sampled_from(sorted(whole[0].fields)), max_size=3))
    }
    rows = [Row("data:1", {**whole[0].fields, **changed}), *whole[1:]]
    for task, labelled in ((fitted, False), (fitted, True), (fresh, True)):
        try:
            records = [task.parse(row, labelled) for row in rows]
            assert all(isinstance(task.group(row), str) for row in rows)
            if task is fresh:
                task.fit(records)
            examples = task.examples(records, 24, labelled, labelled)
        except UsageError as error:
            assert "\n" not in str(error)
            continue
        assert all(0 < len(row) <= 24 for example in examples for row in example.tokens)
