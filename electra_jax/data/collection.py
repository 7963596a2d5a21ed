"""Queries, documents, and which of them belong together."""

import dataclasses
import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from electra_jax.data.labelled import Row, read_rows
from electra_jax.data.source_list import split_last_colon, unescape
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

SCHEME = "beir:"


@dataclasses.dataclass
class Collection:
    """A test collection. `relevant` gives each query's documents with their grades."""

    queries: dict[str, str]
    documents: dict[str, str]
    relevant: dict[str, dict[str, int]]

    def is_itself(self, query: str, document: str) -> bool:
        """Whether a document is the query, as in ArguAna and Quora; it is then no find.

        BEIR's own evaluation leaves out whatever has the query's id; here the text must be
        the same, too, since Cranfield numbers both from 1.
        """
        return query == document and self.queries[query] in self.documents[document]


def locate_collection(source: str) -> tuple[Path, str]:
    """The folder of `beir:DIR[:SPLIT]`, and the split; a folder that exists as written is it."""
    address = source.removeprefix(SCHEME)
    written = Path(address).expanduser()
    before, split = (address, None) if written.is_dir() else split_last_colon(address)
    folder = Path(before).expanduser()
    return folder if folder.is_dir() else Path(unescape(before)).expanduser(), split or "test"


def read_collection(source: str) -> Collection:
    """A collection in BEIR's layout: `beir:DIR[:SPLIT]`, by default the split test.

    Judgments of documents that the corpus lacks are counted and logged. They stay: no ranking
    finds such a document, which lowers recall, as in BEIR's own evaluation. Judgments for queries
    that are missing are counted, logged and left out.

    Raises:
      UsageError: a file is missing or breaks its format, or nothing that is there is judged
        relevant.
    """
    folder, split = locate_collection(source)
    documents = {
        _id(row): f"{row.fields.get('title') or ''} {row.text('text')}".strip()
        for row in read_rows(str(folder / "corpus.jsonl"))
    }
    queries = {_id(row): row.text("text") for row in read_rows(str(folder / "queries.jsonl"))}
    judgments = read_rows(str(folder / "qrels" / f"{split}.tsv"))
    relevant = _read_judgments(judgments, queries, documents)
    if not any(documents.keys() & grades.keys() for grades in relevant.values()):
        raise UsageError(f"{folder}: no document is judged relevant")
    return Collection({q: queries[q] for q in relevant}, documents, relevant)


def _id(row: Row) -> str:
    id = row.text("_id")
    if not id.strip():
        raise UsageError(f"{row.where}: no identifier in column '_id'")
    return id


def _grade(row: Row) -> int:
    text = row.text("score")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise UsageError(f"{row.where}: score {text!r} is not a whole number")
    return int(value)


def _read_judgments(
    rows: Iterable[Row], queries: Mapping[str, str], documents: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    without_query: list[str] = []
    without_document: list[str] = []
    for row in rows:
        query, document, grade = row.text("query-id"), row.text("corpus-id"), _grade(row)
        if grade <= 0:
            continue
        if query not in queries:
            without_query.append(f"{row.where}: {query!r}")
            continue
        if document not in documents:
            without_document.append(f"{row.where}: {document!r}")
        relevant.setdefault(query, {})[document] = grade
    if without_query:
        log.warning(
            "%d judgments are left out, since their query is missing (the first: %s)",
            len(without_query), without_query[0],
        )  # fmt: skip
    if without_document:
        log.warning(
            "%d judgments name a document that is missing, and count as never found "
            "(the first: %s)", len(without_document), without_document[0],
        )  # fmt: skip
    return relevant


def collect_pairs(rows: Iterable[Row], query: str, positive: str) -> Collection:
    """Pairs of a query and its document as a collection; equal texts are one."""
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in rows:
        document = documents.setdefault(row.text(positive), str(len(documents)))
        id = queries.setdefault(row.text(query), f"q{len(queries)}")  # no document's
        relevant.setdefault(id, {})[document] = 1
    return Collection(
        {id: text for text, id in queries.items()},
        {id: text for text, id in documents.items()},
        relevant,
    )


def write_run(rankings: dict[str, list[tuple[str, float]]], path: Path, tag: str) -> None:
    """Writes a run file as trec_eval reads it: six fields a line, parted by a space.

    White space in an identifier is written as in a web address (%20): it would part fields.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for query, ranking in rankings.items():
            for rank, (document, score) in enumerate(ranking, start=1):
                fields = (_one_field(query), "Q0", _one_field(document), rank, f"{score:.6f}", tag)
                print(*fields, file=file)


def _one_field(id: str) -> str:
    return re.sub(r"\s", lambda space: quote(space[0]), id)
