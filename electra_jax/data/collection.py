"""Queries, documents, and which of them belong together."""

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from electra_jax.data.labelled import Row, read_rows
from electra_jax.data.source_list import split_last_colon, unescape
from electra_jax.errors import UsageError

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

    Raises:
      UsageError: a file is missing, or judges what is not there.
    """
    folder, split = locate_collection(source)
    documents = {
        row.text("_id"): f"{row.fields.get('title') or ''} {row.text('text')}".strip()
        for row in read_rows(str(folder / "corpus.jsonl"))
    }
    queries = {
        row.text("_id"): row.text("text") for row in read_rows(str(folder / "queries.jsonl"))
    }
    relevant: dict[str, dict[str, int]] = {}
    for row in read_rows(str(folder / "qrels" / f"{split}.tsv")):
        query, document = row.text("query-id"), row.text("corpus-id")
        if query not in queries or document not in documents:
            raise UsageError(f"{row.where}: judges {query!r} and {document!r}, one not there")
        try:
            grade = int(row.text("score"))
        except ValueError:
            raise UsageError(f"{row.where}: score is not a whole number") from None
        if grade > 0:
            relevant.setdefault(query, {})[document] = grade
    if not relevant:
        raise UsageError(f"{folder}: no document is judged relevant")
    return Collection({q: queries[q] for q in relevant}, documents, relevant)


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
    """A run file as trec_eval reads it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=" ")
        for query, ranking in rankings.items():
            for rank, (document, score) in enumerate(ranking, start=1):
                writer.writerow([query, "Q0", document, rank, f"{score:.6f}", tag])
