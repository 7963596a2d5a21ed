"""A labelled row, and what counts as a value of it."""

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from electra_jax.data.text_files import no_column
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

# Cells of csv and tsv that programs write where there is no value.
MISSING = frozenset({"NaN", "nan", "<NA>", "NULL", "null", "\\N"})
# White space, and marks of no width.
_UNSEEN = " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, NaN, or text without a character that is seen."""
    if isinstance(value, str):
        return not value.strip(_UNSEEN)
    return value is None or (isinstance(value, float) and value != value)


def clean_label(label: str) -> str:
    """A label without what is not seen around it, composed (NFC): equal ones look equal."""
    if label.isascii():
        return label.strip()
    return unicodedata.normalize("NFC", label.strip(_UNSEEN))


def with_labels(rows: Sequence["Row"], columns: Sequence[str]) -> list["Row"]:
    """The rows that have a value in all of these columns; how many have none is logged.

    Raises:
      UsageError: there are rows, and none of them has one.
    """
    lacking = [row for row in rows if any(is_missing(row.fields.get(c, "?")) for c in columns)]
    if not lacking:
        return list(rows)
    first = lacking[0]
    column = next(c for c in columns if is_missing(first.fields.get(c, "?")))
    if len(lacking) == len(rows):
        raise UsageError(f"{first.where}: no label in column {column!r}, nor is one in other rows")
    log.warning(
        "%d of %d rows have no label and are left out (the first: %s, column %r)",
        len(lacking), len(rows), first.where, column,
    )  # fmt: skip
    left_out = set(map(id, lacking))
    return [row for row in rows if id(row) not in left_out]


def warn_of_joined_labels(labels: Iterable[str]) -> None:
    """Logs which labels are one after `clean_label`, though they are written in several ways."""
    forms: dict[str, set[str]] = defaultdict(set)
    for label in set(labels):
        if not is_missing(label):
            forms[clean_label(label)].add(label)
    joined = [sorted(written) for written in forms.values() if len(written) > 1]
    if joined:
        log.warning(
            "%d labels are written in several ways, which count as one: %s",
            len(joined), "; ".join(" and ".join(map(repr, written)) for written in joined[:4]),
        )  # fmt: skip


class Row(NamedTuple):
    """One row as it was read: its columns, and where it stood."""

    where: str  # such as train.csv:12
    fields: dict[str, Any]

    def value(self, column: str) -> Any:
        """A column.

        Raises:
          UsageError: there is none of that name.
        """
        if column not in self.fields:
            raise UsageError(f"{self.where}: {no_column(column, self.fields)}")
        return self.fields[column]

    def text(self, column: str) -> str:
        """A column of text; "" for null and NaN.

        Raises:
          UsageError: there is none of that name, or it is a list or an object.
        """
        value = self.value(column)
        if isinstance(value, list | dict):
            raise UsageError(f"{self.where}: column {column!r} is not text but {value!r:.60}")
        return _as_text(value)

    def label(self, column: str) -> str:
        """A column that holds a label (see `clean_label`).

        Raises:
          UsageError: there is none of that name, or no label in it.
        """
        label = self.text(column)
        if is_missing(label):
            raise UsageError(f"{self.where}: no label in column {column!r}")
        return clean_label(label)

    def texts(self, column: str) -> list[str]:
        """A column that is a list of texts; "" for null and NaN in it.

        Raises:
          UsageError: there is none of that name, or it is something else.
        """
        value = self.value(column)
        kinds = str | int | float | None
        if not isinstance(value, list) or not all(isinstance(x, kinds) for x in value):
            raise UsageError(f"{self.where}: column {column!r} is not a list but {value!r:.60}")
        return [_as_text(x) for x in value]


def _as_text(value: Any) -> str:
    return "" if value is None or value != value else str(value)
