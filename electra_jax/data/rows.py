"""Which tokens make which row: a table over a split of a token store, made once.

Every token of the split is in exactly one row. Row r is made of the pieces
first[r] to first[r + 1]; a piece is a stretch of one document.
"""

import array
import itertools
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from electra_jax.data.array_cache import keep_arrays, kept_arrays
from electra_jax.data.store_checks import CURE, DOCUMENTS, Split, check_order, checksum
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

LAYOUTS = ("pair", "packed")
TABLE_VERSION = 2
SHORTEST_LENGTH = 8
# A packed row's last few slots stay empty rather than hold the scrap of a document that goes on.
SHORTEST_PIECE = 8
DOCUMENTS_AT_ONCE = 1_000_000
KINDS = {"first": np.int64, "starts": np.int64, "lengths": np.int32}


class RowTable(NamedTuple):
    """Rows over a token stream."""

    first: np.ndarray  # int64 [rows + 1], a row's first piece
    starts: np.ndarray  # int64 [pieces], a piece's first token
    lengths: np.ndarray  # int32 [pieces], tokens in a piece

    @property
    def rows(self) -> int:
        return len(self.first) - 1


def row_table(split: Split, length: int, layout: str) -> RowTable:
    """The table of a split, from its cache if it has been made before.

    Takes O(documents + rows). Where the store can be written to, the table is kept in it.

    Raises:
      UsageError: an unknown layout, rows too short, or a split without tokens.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"data.layout={layout!r} is unknown; there are {', '.join(LAYOUTS)}")
    if length < SHORTEST_LENGTH:
        raise UsageError(f"data.length={length} is too short; rows have at least 8 tokens")
    if not len(split.tokens):
        raise UsageError(f"the {split.name} split of the token store is empty")
    cache = split.folder / f"rows-{layout}-{length}-v{TABLE_VERSION}.bin"
    # All that a table is made of: a newer store may have been copied over an older one.
    origin = {"documents": split.checksum, "layout": layout, "length": length}
    if arrays := kept_arrays(cache, origin, KINDS):
        table = RowTable(**arrays)
        if _fits(table, split, layout, length):
            return table
        log.warning("%s reaches beyond its split, and is made anew", cache)
    check_documents(split)
    table = (pack if layout == "packed" else chunk)(np.asarray(split.documents), length)
    keep_arrays(cache, origin, table._asdict())
    return table


def check_documents(split: Split) -> None:
    """Reads where all documents start, before a table is made of it.

    Raises:
      UsageError: it is not what the manifest says, or out of order.
    """
    check_order(split)
    file = split.folder / DOCUMENTS
    if split.checksum and checksum(file) != split.checksum:
        raise UsageError(f"{file} is damaged: {CURE}")


def pack(documents: np.ndarray, length: int) -> RowTable:
    """Fills rows with documents in order; those that do not fit are cut and go on.

    Each piece takes two slots more than its tokens, for [CLS] and [SEP].
    """
    first, starts, lengths = array.array("q", [0]), array.array("q"), array.array("i")
    room = length
    for start, end in _pairs(documents):
        while start < end:
            left, fits = end - start, room - 2
            if fits < left and fits < SHORTEST_PIECE and room < length:
                first.append(len(starts))
                room = length
                continue
            taken = min(left, fits)
            starts.append(start)
            lengths.append(taken)
            start += taken
            room -= taken + 2
    first.append(len(starts))
    return RowTable(
        np.array(first, np.int64), np.array(starts, np.int64), np.array(lengths, np.int32)
    )


def _pairs(documents: np.ndarray) -> Iterator[tuple[int, int]]:
    """Each document's first token and the next one's, as Python's numbers, some at a time."""
    for begin in range(0, len(documents) - 1, DOCUMENTS_AT_ONCE):
        some = documents[begin : begin + DOCUMENTS_AT_ONCE + 1].tolist()
        yield from itertools.pairwise(some)


def chunk(documents: np.ndarray, length: int) -> RowTable:
    """Cuts each document into the fewest equal pieces that fit a row, one piece a row.

    Three slots are kept for [CLS] A [SEP] B [SEP].
    """
    sizes = np.diff(documents)
    pieces = -(-sizes // (length - 3))
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size, count = np.repeat(sizes, pieces), np.repeat(pieces, pieces)
    begin, end = number * size // count, (number + 1) * size // count
    return RowTable(
        np.arange(len(number) + 1),
        np.repeat(documents[:-1], pieces) + begin,
        (end - begin).astype(np.int32),
    )


def _fits(table: RowTable, split: Split, layout: str, length: int) -> bool:
    """Whether rows and pieces are where the split has tokens, and fill no more than a row."""
    first, starts, lengths = table
    special = 2 if layout == "packed" else 3
    if not (table.rows > 0 and first[0] == 0 and first[-1] == len(starts) == len(lengths)):
        return False
    if (first[1:] <= first[:-1]).any() or starts.min() < 0 or starts.max() > len(split.tokens):
        return False
    if lengths.min() <= 0 or lengths.max() > length:
        return False
    if (starts + lengths).max() > len(split.tokens):
        return False
    return bool((np.add.reduceat(lengths + special, first[:-1]) <= length).all())
