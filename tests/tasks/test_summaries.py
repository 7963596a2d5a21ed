"""Summaries are cut and judged in any script; of ASCII text as the library does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from tiny_encoder import TOKENIZER

from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.tasks import find_task
from electra_jax.tasks.summarization import ROUGE, RougeTokenizer, rouge


def parse(name, source, target, **fields):
    kind = find_task(name)
    task = kind(kind.Config(**fields), TOKENIZER)
    return task, task.parse(Row("data:1", {"source": source, "target": target}), True)


@pytest.mark.parametrize(
    ("source", "target", "chosen"),
    [
        ("猫睡了。狗跑了。下雨了。", "狗在跑", 1),
        ("बिल्ली सोती है। कुत्ता दौड़ता है।", "कुत्ता दौड़ता", 1),
        ("هل تنام القطة؟ نعم. لا.", "هل تنام", 0),
        ("Кошка спит. Собака бежит.", "собака", 1),
        ("The cat sleeps. The dogs run.", "a running dog", 1),
    ],
)
def test_the_best_sentence_is_found_in_any_script(source, target, chosen):
    task, record = parse("extractive_summarization", source, target)
    task.fit([record])
    [example] = task.examples([record], 64, True, True)
    labels = [label for label in example.targets["labels"] if label >= 0]
    assert labels == [int(place == chosen) for place in range(len(record.sentences))]


def test_rouge_counts_words_of_any_script():
    _, record = parse("extractive_summarization", "猫睡了。狗跑了。", "狗跑了")
    assert rouge(["狗跑了"], [record]) == dict.fromkeys(ROUGE, 1.0)
    assert 0 < rouge(["狗睡了"], [record])["rouge1"] < 1
    assert rouge(["猫"], [record])["rouge1"] == 0
    assert RougeTokenizer().tokenize("Naïve running, 2 cafés") == ["naïve", "run", "2", "cafés"]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_words_of_ascii_text_are_the_library_s(text):
    library = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)._tokenizer
    assert RougeTokenizer().tokenize(text) == library.tokenize(text)
    assert RougeTokenizer().tokenize(f"{text} ж") == [*library.tokenize(text), "ж"]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=20).filter(str.strip))
def test_any_text_is_judged(text, target):
    task, record = parse("extractive_summarization", text, target)
    metrics = task.score([{"text": text}], [record])
    assert all(0 <= value <= 1 for value in metrics.values())
    assert rouge([target], [record])["rouge1"] == float(bool(RougeTokenizer().tokenize(target)))


def test_texts_of_one_sentence_leave_nothing_to_choose():
    thai = "แมวชอบนอน หมาชอบกิน"
    task, record = parse("extractive_summarization", thai, "แมว")
    with pytest.raises(UsageError, match="data:1: no text has two sentences, .* list of sentences"):
        task.fit([record])
    task, record = parse("extractive_summarization", thai.split(), "แมว")
    task.fit([record])
    task, record = parse("abstractive_summarization", thai, "แมว")
    task.fit([record])
