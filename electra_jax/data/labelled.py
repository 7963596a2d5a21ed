"""Labelled rows, in the formats in which people have them.

A source is a path, whose ending tells the format, or FORMAT:PATH: `csv` and `tsv` (with a
header, or with the names given), `jsonl`, `conll` (columns named 0, 1, … and -1 for the
last; a row is a sentence), `squad` (SQuAD's JSON), `lines` (a text each), or
`tfds:NAME[:SPLIT]`. Several are joined by commas.
"""

import csv
import difflib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.data.documents import load_builder
from electra_jax.data.text_files import (
    decode,
    first_line,
    no_column,
    read_lines,
    without_surrogates,
)
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll",
    ".json": "squad",
}  # fmt: skip
COMPRESSED = (".gz", ".xz", ".zst")
RAGGED_SHARE = 1e-3  # of a TSV file's lines that may have too few or many columns: GLUE's QQP has
Lines = Iterable[tuple[int, str]]  # with their numbers, from 1


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
        """A column of text; "" for null.

        Raises:
          UsageError: there is none of that name, or it is a list or an object.
        """
        value = self.value(column)
        if isinstance(value, list | dict):
            raise UsageError(f"{self.where}: column {column!r} is not text but {value!r:.60}")
        return "" if value is None else str(value)

    def texts(self, column: str) -> list[str]:
        """A column that is a list of texts.

        Raises:
          UsageError: there is none of that name, or it is something else.
        """
        value = self.value(column)
        if not isinstance(value, list) or not all(isinstance(x, str | int | float) for x in value):
            raise UsageError(f"{self.where}: column {column!r} is not a list but {value!r:.60}")
        return [str(x) for x in value]


def read_rows(
    sources: str, columns: Sequence[str] = (), skip_broken: bool = False
) -> Iterator[Row]:
    """The rows of all sources, in order.

    Args:
      sources: see the module.
      columns: names of the columns of csv and tsv files that do not start with them.
      skip_broken: whether the few broken lines of a large tsv file are left out, and logged.

    Raises:
      UsageError: a file is missing or empty, is of no known format, or breaks it; names the
        line.
    """
    for source in sources.split(","):
        empty = True
        for row in _read_source(source.strip(), columns, skip_broken):
            empty = False
            yield row
        if empty:
            raise UsageError(f"{source}: there is no row in it")


def _read_source(source: str, columns: Sequence[str], skip_broken: bool) -> Iterator[Row]:
    scheme, colon, address = source.partition(":")
    if scheme == "tfds" and colon:
        yield from _read_tfds(address)
        return
    if colon and scheme in FORMATS:
        kind, path = scheme, Path(os.path.expanduser(address))
    else:
        path = Path(os.path.expanduser(source))
        kind = kind_of(source)
        if not kind:
            near = difflib.get_close_matches(scheme, FORMATS, n=1) if colon else []
            hint = f"did you mean {near[0]}:{address}?" if near else "write FORMAT:PATH, with"
            raise UsageError(
                f"{source!r} is of no known format: {hint} csv, tsv, jsonl, conll, squad or lines"
            )
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    lines = ((number, decode(line, path, number)) for number, line, _ in read_lines(path))
    yield from parse_rows(lines, kind, str(path), columns, skip_broken)


def kind_of(path: str) -> str:
    """The format that a file's ending tells; "" if none."""
    bare = Path(path)
    if bare.suffix in COMPRESSED:
        bare = bare.with_suffix("")
    return SUFFIXES.get(bare.suffix, "")


def parse_rows(
    lines: Lines, kind: str, name: str, columns: Sequence[str] = (), skip_broken: bool = False
) -> Iterator[Row]:
    """The rows in lines of a format, as they come.

    Args:
      lines: numbered lines.
      kind: the format.
      name: what messages call the file.
      columns, skip_broken: see `read_rows`.

    Raises:
      UsageError: a line breaks the format.
    """
    if kind in ("csv", "tsv"):
        yield from _parse_table(lines, kind, name, columns, skip_broken)
    else:
        yield from FORMATS[kind](lines, name)


def _parse_table(
    lines: Lines, kind: str, name: str, named: Sequence[str], skip_broken: bool
) -> Iterator[Row]:
    """A line of TSV is a row whatever quotes are in it; CSV may quote line breaks."""
    dialect: dict[str, Any] = {"strict": True}
    if kind == "tsv":
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    columns: list[str] | None = None
    csv.field_size_limit(1 << 30)
    reader = csv.reader((line for _, line in lines), **dialect)
    start, rows = 1, 0
    ragged: list[str] = []
    try:
        for cells in reader:
            where, start = f"{name}:{start}", reader.line_num + 1
            if not cells:
                if not columns or len(columns) > 1:
                    continue
                cells = [""]  # of one column, a blank line is a row
            if columns is None:
                # Where names are given, a first line that holds one of them is a header still.
                is_header = not named or bool(set(named) & set(cells))
                columns = cells if is_header else list(named)
                double = [name for name in columns if name and columns.count(name) > 1]
                if double:
                    raise UsageError(f"{where}: two columns are called {double[0]!r}")
                if is_header:
                    continue
            rows += 1
            if len(cells) == len(columns):
                yield Row(where, dict(zip(columns, cells, strict=True)))
                continue
            ragged.append(f"{where}: {len(cells)} columns, where {len(columns)} are expected")
            if kind == "csv" or not skip_broken:
                raise UsageError(ragged[0])
    except csv.Error as error:
        raise UsageError(f"{name}:{start}: not valid {kind}: {error}") from error
    if len(ragged) > RAGGED_SHARE * rows:
        raise UsageError(ragged[0])
    if ragged:
        log.warning("%s: %d broken lines are left out (%s)", name, len(ragged), ragged[0])


def _parse_json_lines(lines: Lines, name: str) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            fields = _parse_json(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(fields, dict):
            raise UsageError(f"{where}: not a JSON object")
        yield Row(where, fields)


def _parse_json(text: str) -> Any:
    """JSON, without the halves of surrogate pairs that it can write and UTF-8 cannot."""
    value = json.loads(text)
    return _writable(value) if "\\u" in text else value


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_writable(part) for part in value]
    if isinstance(value, dict):
        return {without_surrogates(key): _writable(part) for key, part in value.items()}
    return value


def _parse_conll(lines: Lines, name: str) -> Iterator[Row]:
    words: list[list[str]] = []
    start = 1

    def row() -> Row:
        columns = [list(column) for column in zip(*words, strict=True)]
        fields = {str(index): column for index, column in enumerate(columns)}
        last = {"-1": columns[-1]} if len(columns) > 1 else {}  # words alone have no labels
        return Row(f"{name}:{start}", {**fields, **last})

    for number, line in lines:
        cells = line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()
        if not line.strip() or cells[0] == "-DOCSTART-":
            if words:
                yield row()
            words = []
            continue
        if not words:
            start = number
        elif len(cells) != len(words[0]):
            raise UsageError(
                f"{name}:{number}: {len(cells)} columns, where {len(words[0])} are expected"
            )
        words.append(cells)
    if words:
        yield row()


def _parse_squad(lines: Lines, name: str) -> Iterator[Row]:
    """A row for each question: id, question, context, title, answers, impossible."""
    try:
        content = _parse_json("".join(line for _, line in lines))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not valid JSON: {error}") from error
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    impossible = bool(question.get("is_impossible", False))
                    fields = {
                        "id": question["id"],
                        "question": question["question"],
                        "context": paragraph["context"],
                        "title": article.get("title", ""),
                        "impossible": impossible,
                    }
                    # Without the key nobody has said that there is no answer.
                    if impossible or "answers" in question:
                        fields["answers"] = question.get("answers", [])
                    yield Row(f"{name}, question {question['id']}", fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name}: not in SQuAD's format: {error!r}") from error


def _parse_lines(lines: Lines, name: str) -> Iterator[Row]:
    for number, line in lines:
        yield Row(f"{name}:{number}", {"text": line.rstrip("\r\n")})


FORMATS: dict[str, Any] = {
    "csv": _parse_table,
    "tsv": _parse_table,
    "jsonl": _parse_json_lines,
    "conll": _parse_conll,
    "squad": _parse_squad,
    "lines": _parse_lines,
}


def _read_tfds(address: str) -> Iterator[Row]:
    """Rows of a prepared TensorFlow data set; class numbers become the names of classes."""
    name, _, split = address.partition(":")
    builder = load_builder(name, None)
    split = split or "train"
    try:
        dataset = builder.as_dataset(split=split, shuffle_files=False)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"tfds:{address}: no split {split!r}; there are: {', '.join(builder.info.splits)}"
        ) from error
    features = builder.info.features
    try:
        for number, example in enumerate(dataset.as_numpy_iterator(), start=1):
            fields = {key: _plain(value, features[key]) for key, value in example.items()}
            if isinstance(fields.get("answers"), dict):  # of SQuAD
                answers = fields["answers"]
                fields["answers"] = [
                    {"text": text, "answer_start": start}
                    for text, start in zip(answers["text"], answers["answer_start"], strict=True)
                ]
            yield Row(f"tfds:{address}, row {number}", fields)
    except UnicodeDecodeError as error:
        raise UsageError(f"tfds:{address}: not valid UTF-8: {error.reason}") from error
    except Exception as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"tfds:{address} cannot be read: {first_line(error)}") from error


def _plain(value: Any, feature: Any) -> Any:
    """A value of TensorFlow data sets as JSON would have it."""
    if isinstance(value, dict):
        return {key: _plain(part, feature[key]) for key, part in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    inner = getattr(feature, "feature", feature)
    if getattr(value, "ndim", 0):
        return [_plain(part, inner) for part in value]
    if hasattr(inner, "int2str") and int(value) >= 0:
        return inner.int2str(int(value))
    return value.item() if hasattr(value, "item") else value
