"""BM25 finds documents in any script, and nothing where no word is shared."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoder import TOKENIZER

from electra_jax.data.collection import Collection
from electra_jax.errors import UsageError
from electra_jax.tasks import find_task
from electra_jax.tasks.ranking import bm25, ranking_metrics, search_terms

CHINESE = [
    ("猫睡多久", "猫一天睡十五个小时"), ("狗喜欢什么", "狗喜欢追木棍"),
    ("巴黎在哪里", "巴黎在法国北部"), ("谁写了红楼梦", "曹雪芹写了红楼梦"),
    ("水在几度沸腾", "水在一百度沸腾"), ("月亮多远", "月亮离地球三十八万公里"),
]  # fmt: skip
THAI = [("แมวนอน", "แมวชอบนอน"), ("หมากิน", "หมาชอบกินข้าว")]
HINDI = [("बिल्ली कहाँ है", "बिल्ली घर में है"), ("कुत्ता", "कुत्ता दौड़ता")]
RUSSIAN = [("где спит кошка", "кошка спит дома"), ("куда бежит собака", "собака бежит")]


def collection_of(pairs):
    return Collection(
        {f"q{i}": query for i, (query, _) in enumerate(pairs)},
        {f"d{i}": document for i, (_, document) in enumerate(pairs)},
        {f"q{i}": {f"d{i}": 1} for i in range(len(pairs))},
    )


@pytest.mark.parametrize("pairs", [CHINESE, THAI, HINDI, RUSSIAN])
def test_bm25_finds_answers_in_any_script(pairs):
    # The right ones lie at the end: what finds nothing cannot be right by its order.
    wrong = {f"x{i}": f"nothing {i}" for i in range(10)}
    collection = collection_of(pairs)
    collection.documents = {**wrong, **collection.documents}
    found = bm25(collection, 10)
    assert ranking_metrics(found, collection.relevant)["mrr@10"] == 1
    assert not any(id in wrong for ranking in found.values() for id, _ in ranking)


def test_a_document_that_shares_no_word_is_not_found(caplog):
    collection = Collection(
        {"q0": "猫", "q1": "vol de nuit"}, {"d0": "月 日", "d1": "猫 狗"}, {"q0": {"d1": 1}}
    )
    found = bm25(collection, 2)
    assert [[id for id, _ in ranking] for ranking in found.values()] == [["d1"], []]
    assert "1 of 2 queries share no word with a document" in caplog.text
    assert "(the first: q1)" in caplog.text


def test_stop_words_are_of_the_language_that_is_named():
    assert search_terms("The cat is a cat", frozenset({"the", "is", "a"})) == ["cat", "cat"]
    russian = Collection({"q": "и он"}, {"d0": "и он идёт"}, {})
    assert bm25(russian, 1, "en")["q"] and not bm25(russian, 1, "ru")["q"]
    chinese = Collection({"q": "的"}, {"d0": "猫的家"}, {})
    assert bm25(chinese, 1, "none")["q"] and not bm25(chinese, 1, "zh")["q"]


def test_single_letters_of_alphabets_are_not_looked_for():
    """As in the library's own pattern; in Han a character is a word."""
    assert search_terms("a b2 Я в 7 猫 가", frozenset()) == ["b2", "猫", "가"]


def test_nothing_to_rerank_is_refused():
    kind = find_task("reranking")
    task = kind(kind.Config(), TOKENIZER)
    with pytest.raises(UsageError, match="BM25 finds no document for any query"):
        task.texts(Collection({"q": "good"}, {"d": "bad"}, {"q": {"d": 1}}))
    kept = task.texts(Collection({"q": "good", "r": "x7"}, {"d": "good"}, {"q": {"d": 1}}))
    assert [record.documents for record in kept] == [["d"], []]
    examples = task.examples(kept, 16, False, False)
    answers = task.answers([[1.0]], examples, kept)
    assert [len(answer["ranking"]) for answer in answers] == [1, 0]


TEXTS = st.lists(st.text("ab猫狗й่é 。.\u0301", max_size=6), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(TEXTS, TEXTS)
def test_any_texts_are_searched_or_refused(queries, documents):
    """What is found shares a word, and better ones come first."""
    collection = Collection(
        {f"q{i}": text for i, text in enumerate(queries)},
        {f"d{i}": text for i, text in enumerate(documents)}, {},
    )  # fmt: skip
    terms = {id: set(search_terms(text, frozenset())) for id, text in collection.documents.items()}
    if not any(terms.values()):
        with pytest.raises(UsageError, match="no document has a word"):
            bm25(collection, 3, "none")
        return
    for query, ranking in bm25(collection, 3, "none").items():
        wanted = set(search_terms(collection.queries[query], frozenset()))
        assert all(wanted & terms[id] for id, _ in ranking)
        assert len(ranking) == min(3, sum(bool(wanted & found) for found in terms.values()))
        scores = [score for _, score in ranking]
        assert scores == sorted(scores, reverse=True)
