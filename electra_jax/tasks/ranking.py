"""Rankings of documents: those of BM25, and how good a ranking is."""

import logging
import math
from collections.abc import Mapping, Sequence

import bm25s
import numpy as np
from bm25s import stopwords

from electra_jax.data.collection import Collection
from electra_jax.data.segmentation import words
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)
logging.getLogger("bm25s").setLevel(logging.WARNING)

Ranking = list[tuple[str, float]]
RANKING_METRICS = ("ndcg@10", "mrr@10", "recall@10", "recall@100")
STOP_WORDS: Mapping[str, Sequence[str]] = {  # by language
    "none": (),
    "de": stopwords.STOPWORDS_GERMAN,
    "en": stopwords.STOPWORDS_EN,
    "es": stopwords.STOPWORDS_SPANISH,
    "fr": stopwords.STOPWORDS_FRENCH,
    "it": stopwords.STOPWORDS_ITALIAN,
    "nl": stopwords.STOPWORDS_DUTCH,
    "no": stopwords.STOPWORDS_NORWEGIAN,
    "pt": stopwords.STOPWORDS_PORTUGUESE,
    "ru": stopwords.STOPWORDS_RUSSIAN,
    "sv": stopwords.STOPWORDS_SWEDISH,
    "zh": stopwords.STOPWORDS_CHINESE,
}


def bm25(collection: Collection, depth: int, stop_words: str = "en") -> dict[str, Ranking]:
    """Each query's best documents by BM25, as the bm25s library computes it by default.

    Documents that share no word with a query are not found. Queries that find none are counted
    and logged.

    Args:
      collection: what is searched, and for what.
      depth: documents of a ranking, at most.
      stop_words: the language of the words that are left out, a key of `STOP_WORDS`.

    Raises:
      UsageError: no document has a word.
    """
    left_out = frozenset(STOP_WORDS[stop_words])
    ids = list(collection.documents)
    documents = [search_terms(text, left_out) for text in collection.documents.values()]
    if not any(documents):
        raise UsageError("no document has a word that BM25 can look for")
    queries = [search_terms(text, left_out) for text in collection.queries.values()]
    index = bm25s.BM25()
    index.index(documents, show_progress=False)
    reach = min(depth + 1, len(ids))
    found, scores = index.retrieve(queries, k=reach, show_progress=False)
    rankings = {}
    for place, query in enumerate(collection.queries):
        pairs = zip(found[place], scores[place], strict=True)
        ranking = [(ids[i], float(score)) for i, score in pairs if score > 0]
        rankings[query] = finds(collection, query, ranking, depth)
    lost = [query for query, ranking in rankings.items() if not ranking]
    if lost:
        log.warning(
            "%d of %d queries share no word with a document, and BM25 finds nothing for them "
            "(the first: %s)", len(lost), len(rankings), lost[0],
        )  # fmt: skip
    return rankings


def search_terms(text: str, left_out: frozenset[str]) -> list[str]:
    """What BM25 looks for: words that are not left out, nor a single letter of an alphabet.

    In scripts without capital letters, such as Han, a single character is a word.
    """
    return [
        word
        for word in words(text)
        if word not in left_out and (len(word) > 1 or (word.isalpha() and word.upper() == word))
    ]


def finds(collection: Collection, query: str, ranking: Ranking, depth: int) -> Ranking:
    """The best of a ranking, without the query itself."""
    return [found for found in ranking if not collection.is_itself(query, found[0])][:depth]


def ranking_metrics(
    rankings: dict[str, Ranking], relevant: dict[str, dict[str, int]]
) -> dict[str, float]:
    """nDCG@10 (linear gains), MRR@10 and recall, as means over the queries."""
    metrics: dict[str, list[float]] = {name: [] for name in RANKING_METRICS}
    for query, grades in relevant.items():
        found = [document for document, _ in rankings.get(query, [])]
        gains = [grades.get(document, 0) for document in found[:10]]
        ideal = sorted(grades.values(), reverse=True)[:10]
        metrics["ndcg@10"].append(_discounted(gains) / _discounted(ideal))
        first = next((rank for rank, gain in enumerate(gains, start=1) if gain), math.inf)
        metrics["mrr@10"].append(1 / first)
        for depth in (10, 100):
            hits = len(grades.keys() & set(found[:depth]))
            metrics[f"recall@{depth}"].append(hits / len(grades))
    return {name: float(np.mean(values)) for name, values in metrics.items()}


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
