"""Labelled rows, in the formats in which people have them.

A source is a path, whose ending tells the format, or FORMAT:PATH: `csv` and `tsv` (with a
header, or with the names given), `jsonl` (a line each, or an array), `json` (the same, objects of
several lines, or SQuAD's JSON), `squad`, `parquet`, `conll` (columns named 0, 1, … and -1 for the
last; a row is a sentence), `lines` (a text each), or `tfds:NAME[:SPLIT]`. Several are joined by
commas (see `source_list`).
"""

import csv
import difflib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from electra_jax.data.compression import ARCHIVES, format_ending
from electra_jax.data.documents import load_builder
from electra_jax.data.json_values import as_object, parse_json, read_records
from electra_jax.data.labelled_row import MISSING, Row, clean_label
from electra_jax.data.parquet_files import read_parquet_rows
from electra_jax.data.source_list import split_list, unescape
from electra_jax.data.text_files import (
    PIECE_OF_JSON,
    decode,
    first_line,
    holds_json_array,
    read_lines,
)
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

ENDINGS = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".conll": "conll",
    ".conllu": "conll", ".json": "json", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
RAGGED_SHARE = 1e-3  # of a TSV file's lines that may have too few or many columns: GLUE's QQP has
LONGEST_CELL = 64 << 20  # characters: a quote that is never closed goes on to the end of the file
LONGEST_SENTENCE = 1_000_000  # words of CoNLL, without a blank line
Lines = Iterable[tuple[int, str]]  # with their numbers, from 1


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
    for source in split_sources(sources):
        empty = True
        for row in _read_source(source, columns, skip_broken):
            empty = False
            yield row
        if empty:
            raise UsageError(f"{source}: there is no row in it")


def split_sources(sources: str) -> list[str]:
    """The sources that are joined by commas; a file whose name has a comma is one."""
    return split_list(sources, lambda source: locate(source)[1].is_file())


def locate(source: str) -> tuple[str, Path]:
    """The format and the path of a source; "" if the format is not known.

    A file that exists as it is written is that file, whatever colons are in its name.
    """
    scheme, colon, address = source.partition(":")
    written = Path(os.path.expanduser(source))
    kind = kind_of(source)
    if not colon or scheme not in FORMATS or (kind and written.is_file()):
        return kind, written if written.is_file() else Path(os.path.expanduser(unescape(source)))
    written = Path(os.path.expanduser(address))
    return scheme, written if written.exists() else Path(os.path.expanduser(unescape(address)))


def _read_source(source: str, columns: Sequence[str], skip_broken: bool) -> Iterator[Row]:
    kind, path = locate(source)
    scheme, colon, address = source.partition(":")
    if scheme == "tfds" and colon and not path.is_file():
        yield from _read_tfds(address)
        return
    if not kind:
        if format_ending(path) in ARCHIVES or path.suffix.lower() in ARCHIVES:
            raise UsageError(f"{source} is an archive: unpack it and name the files in it")
        near = difflib.get_close_matches(scheme, FORMATS, n=1) if colon else []
        known = f"{', '.join(FORMATS)}"
        hint = f"did you mean {near[0]}:{address}?" if near else f"write FORMAT:PATH, with {known}"
        raise UsageError(f"{source!r} is of no known format: {hint}")
    yield from read_file(path, kind, columns, skip_broken)


def read_file(
    path: Path, kind: str, columns: Sequence[str] = (), skip_broken: bool = False
) -> Iterator[Row]:
    """The rows of a file of a format; see `read_rows`."""
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such {'file: it is a folder' if path.is_dir() else 'file'}"
        )
    if kind == "parquet":
        yield from itertools.starmap(Row, read_parquet_rows(path))
        return
    if kind == "jsonl" and holds_json_array(path):
        kind = "json"
    if kind in ("json", "squad"):
        pieces = read_lines(path, cut=True, longest=PIECE_OF_JSON)
    else:
        pieces = read_lines(path)
    lines = ((number, decode(line, path, number)) for number, line, _ in pieces)
    yield from parse_rows(lines, kind, str(path), columns, skip_broken)


def kind_of(path: str) -> str:
    """The format that a file's ending tells; "" if none."""
    return ENDINGS.get(format_ending(path), "")


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
    columns: list[str] | None = None
    rows = 0
    ragged: list[str] = []
    for number, cells in (_tsv_cells if kind == "tsv" else _csv_cells)(lines, name):
        where = f"{name}:{number}"
        if not cells:
            if not columns or len(columns) > 1:
                continue
            cells = [""]  # of one column, a blank line is a row
        if columns is None:
            header = [clean_label(cell) for cell in cells]
            # Where names are given, a first line that holds one of them is a header still.
            is_header = not named or bool(set(named) & set(header))
            columns = header if is_header else list(named)
            double = [name for name in columns if name and columns.count(name) > 1]
            if double:
                raise UsageError(f"{where}: two columns are called {double[0]!r}")
            if is_header:
                continue
        rows += 1
        if len(cells) == len(columns):
            cells = [None if cell in MISSING else cell for cell in cells]
            yield Row(where, dict(zip(columns, cells, strict=True)))
            continue
        ragged.append(f"{where}: {len(cells)} columns, where {len(columns)} are expected")
        if kind == "csv" or not skip_broken:
            raise UsageError(ragged[0])
    if len(ragged) > RAGGED_SHARE * rows:
        raise UsageError(ragged[0])
    if ragged:
        log.warning("%s: %d broken lines are left out (%s)", name, len(ragged), ragged[0])


def _tsv_cells(lines: Lines, name: str) -> Iterator[tuple[int, list[Any]]]:
    del name
    for number, line in lines:
        line = line.rstrip("\r\n")
        yield number, line.split("\t") if line else []


def _csv_cells(lines: Lines, name: str) -> Iterator[tuple[int, list[Any]]]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((line for _, line in lines), strict=True)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        hint = ""
        if "new-line" in str(error):
            hint = " (a carriage return in a cell without quotes: quote it, or make it a line end)"
        raise UsageError(
            f"{name}:{start}: not valid csv: {str(error).split(' - ')[0]}{hint}"
        ) from error


def _parse_json_lines(lines: Lines, name: str) -> Iterator[Row]:
    lines = iter(lines)
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):  # an array, which may go on in further lines
            yield from _parse_json(itertools.chain([(number, line)], lines), name)
            return
        where = f"{name}:{number}"
        try:
            fields = parse_json(line)
        except (ValueError, RecursionError) as error:
            several = " (an object of several lines: write json:PATH)"
            hint = several if line.rstrip().endswith(("{", ",")) else ""
            raise UsageError(f"{where}: not valid JSON: {error}{hint}") from error
        yield Row(where, as_object(fields, where))


def _parse_json(lines: Lines, name: str) -> Iterator[Row]:
    """Rows, or SQuAD's format."""
    for where, fields in read_records(lines, name):
        if isinstance(fields.get("paragraphs"), list):
            yield from _questions(fields, name)
        elif fields:
            yield Row(where, fields)
        else:
            raise UsageError(f"{where}: not in SQuAD's format, and a row without columns")


def _parse_squad(lines: Lines, name: str) -> Iterator[Row]:
    for where, article in read_records(lines, name):
        if "paragraphs" not in article:
            raise UsageError(f"{where}: not in SQuAD's format; for rows, write json:PATH")
        yield from _questions(article, name)


def _questions(article: dict[str, Any], name: str) -> Iterator[Row]:
    """A row for each question of an article: id, question, context, title, answers, impossible."""
    try:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                impossible = bool(question.get("is_impossible", False))
                answers = {"answers": question["answers"]} if "answers" in question else {}
                yield Row(
                    f"{name}, question {question['id']}",
                    {
                        "id": question["id"],
                        "question": question["question"],
                        "context": paragraph["context"],
                        "title": article.get("title", ""),
                        **({"answers": []} if impossible else answers),
                        "impossible": impossible,
                    },
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name}: not in SQuAD's format: {error!r}") from error


_SPACES = " \t\r\n"  # a no-break space is a character of a word
_DOCUMENTS = ("-DOCSTART-", "-DOCEND-")


def _parse_conll(lines: Lines, name: str) -> Iterator[Row]:
    words: list[list[str]] = []
    number = 0
    for number, line in lines:
        line = line.rstrip("\r\n")
        start = line[:1]
        is_blank = start in _SPACES and not line.strip(_SPACES)
        if not is_blank and not (start == "-" and line.startswith(_DOCUMENTS)):
            plain = "\t" in line and " " not in line
            words.append(line.split("\t") if plain else _cells(line))
            if len(words) > LONGEST_SENTENCE:
                raise UsageError(f"{name}:{number}: no blank line ends a sentence before this one")
        elif words:
            yield _sentence(words, name, number - len(words))
            words = []
    if words:
        yield _sentence(words, name, number + 1 - len(words))


def _sentence(words: list[list[str]], name: str, number: int) -> Row:
    """The row of a sentence that starts at a line; comments may stand before its words."""
    width = len(words[-1])
    while words[0][0].startswith("#") and len(words[0]) != width:
        del words[0]
        number += 1
    try:
        columns = [list(column) for column in zip(*words, strict=True)]
    except ValueError:
        width = len(words[0])
        index = next(index for index, cells in enumerate(words) if len(cells) != width)
        raise UsageError(
            f"{name}:{number + index}: {len(words[index])} columns, where {width} are expected"
        ) from None
    fields = {str(index): column for index, column in enumerate(columns)}
    if len(columns) > 1:  # words alone have no labels
        fields["-1"] = columns[-1]
    return Row(f"{name}:{number}", fields)


def _cells(line: str) -> list[str]:
    """The columns of a line; between tabs they may be empty."""
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    cells = line.split(" ")
    return [cell for cell in cells if cell] if "" in cells else cells


def _parse_lines(lines: Lines, name: str) -> Iterator[Row]:
    for number, line in lines:
        yield Row(f"{name}:{number}", {"text": line.rstrip("\r\n")})


FORMATS: dict[str, Any] = {
    "csv": _parse_table,
    "tsv": _parse_table,
    "jsonl": _parse_json_lines,
    "json": _parse_json,
    "conll": _parse_conll,
    "squad": _parse_squad,
    "parquet": None,  # has no lines: see `read_file`
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
    if hasattr(inner, "int2str"):
        return inner.int2str(int(value)) if 0 <= int(value) < inner.num_classes else None
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value  # NaN
