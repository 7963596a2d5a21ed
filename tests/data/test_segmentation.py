"""Words and sentences of many scripts are found; of ASCII text as they always were."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from icu4py.breakers import WordBreaker

from electra_jax.data.segmentation import join_sentences, sentences, space_out, words

QUICK = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫一天睡十五个小时", ["猫", "一天", "睡", "十五", "个", "小时"]),
        ("東京都に", ["東京", "都", "に"]),
        ("สวัสดีครับ", ["สวัสดี", "ครับ"]),
        ("कुत्ता दौड़ता है।", ["कुत्ता", "दौड़ता", "है"]),
        ("Где спит кошка?", ["где", "спит", "кошка"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("Ｆｕｌｌ ﾈｺ", ["full", "ネコ"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("می\u200cخواهم", ["میخواهم"]),  # the joiner cannot be seen
        ("don't 3.5 a_b — naïve", ["don", "t", "3", "5", "a", "b", "naïve"]),
        ("… 😀 ，", []),
    ],
)
def test_words_are_those_of_the_script(text, expected):
    assert words(text) == expected


@QUICK
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=40))
def test_words_of_ascii_text_are_runs_of_letters_and_digits(text):
    """With and without ICU, which is not asked about them."""
    runs = re.findall("[a-z0-9]+", text.lower())
    assert words(text) == runs
    assert words(f"{text} ж") == [*runs, "ж"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫睡了。狗跑了！下雨了。", ["猫睡了。", "狗跑了！", "下雨了。"]),
        ("बिल्ली सोती है। बारिश है।", ["बिल्ली सोती है।", "बारिश है।"]),
        ("هل تنام القطة؟ نعم. لا.", ["هل تنام القطة؟", "نعم.", "لا."]),
        ("The cat sleeps. The dog runs! Why? Rain.",
         ["The cat sleeps.", "The dog runs!", "Why?", "Rain."]),
        ("the cat sleeps. the dog runs! why?", ["the cat sleeps.", "the dog runs!", "why?"]),
        ("Mr. Smith left on Jan. 5. He ran 3.5 miles.",
         ["Mr. Smith left on Jan. 5.", "He ran 3.5 miles."]),
        ("A title\n\nA line\r\nthat goes on. Next.", ["A title", "A line that goes on.", "Next."]),
        ("\U0001f408 sleeps. 猫睡了。", ["\U0001f408 sleeps.", "猫睡了。"]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_sentences_end_where_the_script_says(text, expected):
    assert sentences(text) == expected


@pytest.mark.parametrize(
    "text",
    ["猫睡了。狗跑了！", "One. Two.", "Кот. Пёс.", "แมว 1.\nหมา 2.", "他说：“好。”然后走了。", ""],
)
def test_sentences_are_joined_as_they_were_written(text):
    assert join_sentences(sentences(text)) == text.replace("\n", " ")
    assert join_sentences(["One.", "", "猫。", "猫。"]) == "One. 猫。猫。"


@QUICK
@given(st.text(max_size=40))
def test_sentences_hold_the_whole_text(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@QUICK
@given(st.text(max_size=40))
def test_any_text_has_words_without_spaces_or_punctuation(text):
    for word in words(text):
        assert word and word == word.strip() and not set(word) & set(" .,!?。")
    assert "".join(space_out(text).split()) == "".join(text.split())


def test_halves_of_surrogate_pairs_are_no_letters():
    text = "one \ud83d \u732b. Two."
    assert words(text) == ["one", "猫", "two"]
    assert sentences(text) == ["one ?", "猫.", "Two."]
    assert space_out(text).split() == ["one", "?", "猫", ".", "Two."]


def test_characters_of_scripts_without_spaces_stand_alone():
    assert space_out("红楼梦 is a น้ำ, カ\u3099").split() == [
        "红", "楼", "梦", "is", "a", "น้ำ", ",", "カ\u3099",
    ]  # fmt: skip
    assert space_out("Один два") == "Один два"


def test_icu_counts_characters_as_python_does():
    """Its own offsets are of UTF-16: texts are cut by the lengths of the parts."""
    assert list(WordBreaker("\U0001f408x 猫", "root")) == ["\U0001f408", "x", " ", "猫"]
