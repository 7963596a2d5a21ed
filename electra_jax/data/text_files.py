"""Text out of files: plain text and JSON lines, compressed or not, streamed."""

import dataclasses
import glob
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.data.compression import DAMAGE, open_bytes
from electra_jax.data.json_values import read_records, without_surrogates
from electra_jax.errors import UsageError

Reader = Callable[[Path], Iterator[tuple[str, int]]]  # see `read_text`
Find = Callable[[str], list["Found"]]  # see `find_files`

log = logging.getLogger(__name__)

MANY_LINES = 1000  # of one document, for a file that was perhaps meant otherwise
_LONGEST = 64 << 20  # bytes of text held at once
PIECE_OF_JSON = 1 << 20  # bytes decoded at once of lines of any length
_CARRIAGE_RETURN = re.compile(r"\s*\r\s*")
_BLANK = re.compile(r"\s*\r\s*\r\s*")  # a blank line between carriage returns
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Found(NamedTuple):
    """A file of a glob."""

    path: str
    size: int  # bytes
    modified: float | None = None  # seconds, where its content is out of reach


@dataclasses.dataclass(frozen=True)
class File:
    """A file of documents; may be sent to another process.

    Attributes:
      path: where it is.
      size: bytes.
      reader: yields the documents of a path, and the bytes read so far.
      modified: when it was written, if it lies where only the reader reaches it.
    """

    path: str
    size: int
    reader: Reader
    modified: float | None = None

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields documents, and the bytes of the file read so far."""
        return self.reader(Path(self.path))

    def describe(self) -> dict[str, Any]:
        """Its name, its size, and what tells whether it was changed in place."""
        content: dict[str, Any] = {"modified": self.modified}
        if self.modified is None:
            content = {"sha256": checksum(self.path)}
        return {"name": os.path.basename(self.path), "bytes": self.size, **content}


def checksum(path: str | os.PathLike[str]) -> str:
    """A hash of a file's bytes.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def find_files(pattern: str) -> list[Found]:
    """The files of a glob; what exists as it is written, file or folder, is not a pattern."""
    pattern = os.path.expanduser(pattern)
    matches = [pattern] if os.path.exists(pattern) else []
    if not matches:
        literal = pattern
        while literal and not os.path.isdir(literal):
            literal = os.path.dirname(literal)
        pattern = glob.escape(literal) + pattern[len(literal) :]
        matches = glob.glob(pattern, recursive=True)
    return [Found(match, os.path.getsize(match)) for match in matches if os.path.isfile(match)]


def found_or_refused(source: str, pattern: str, find: Find) -> list[Found]:
    """The files of a glob, in the order of their names.

    Raises:
      UsageError: no file matches; the message calls the pattern `source`.
    """
    if found := sorted(find(pattern)):
        return found
    folder = os.path.isdir(os.path.expanduser(pattern))
    raise UsageError(f"{source} {'names a folder: add /*' if folder else 'matches no file'}")


class Files:
    """The files of a glob, in the order of their names.

    Attributes:
      files: the files.
      size: bytes of all files.
    """

    def __init__(self, source: str, pattern: str, reader: Reader, find: Find) -> None:
        """Looks for the files of `pattern`, with `find_files` or a function like it.

        Raises:
          UsageError: no file matches; the message calls the pattern `source`.
        """
        self.files = [
            File(path, size, reader, modified)
            for path, size, modified in found_or_refused(source, pattern, find)
        ]
        self.size = sum(file.size for file in self.files)

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields documents, and the bytes of all files read so far."""
        before = 0
        for file in self.files:
            for text, consumed in file.read():
                yield text, before + consumed
            before += file.size

    def describe(self) -> dict[str, Any]:
        """Names, sizes and hashes of the files."""
        return {"files": [file.describe() for file in self.files]}


def read_text(path: Path) -> Iterator[tuple[str, int]]:
    """Yields paragraphs, a line each, between blank lines; and the bytes read so far."""
    lines: list[str] = []
    held = consumed = number = 0
    is_divided = False
    for number, line, consumed in read_lines(path, cut=True):
        text = decode(line, path, number).strip()
        is_divided = is_divided or not text or "\r" in text
        if "\r" in text:  # which ends a line, too
            *whole, text = (_CARRIAGE_RETURN.sub("\n", part) for part in _BLANK.split(text))
            for part in whole:
                yield "\n".join([*lines, part]), consumed
                lines, held = [], 0
        if lines and (not text or held + len(line) > _LONGEST):
            yield "\n".join(lines), consumed
            lines = []
            held = 0
        if text:
            lines.append(text)
            held += len(line)
    if lines:
        yield "\n".join(lines), consumed
    if number >= MANY_LINES and not is_divided:
        log.warning(
            "%s: its %s lines are one document, as no blank line divides them; if each line is a "
            "document, write lines:%s", path, f"{number:,}", path,
        )  # fmt: skip


def read_text_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Yields each line as a document, and the bytes read so far."""
    for number, line, consumed in read_lines(path, cut=True):
        for text in decode(line, path, number).strip().split("\r"):
            yield text, consumed


def read_json_lines(path: Path, column: str) -> Iterator[tuple[str, int]]:
    """Yields the text of each line's `column`, "" for null, and the bytes read so far.

    A file that holds an array has its elements read.
    """
    if holds_json_array(path):
        yield from _read_json_array(path, column)
        return
    for number, line, consumed in read_lines(path):
        text = decode(line, path, number).strip()
        if not text:
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number}: not a JSON object")
        yield _text_of(row, column, f"{path}:{number}"), consumed


def holds_json_array(path: Path) -> bool:
    """Whether a file starts with the bracket of an array; one of JSON lines does not."""
    for _, line, _ in read_lines(path, cut=True, longest=PIECE_OF_JSON):
        if start := line.lstrip()[:1]:
            return start == b"["
    return False


def _read_json_array(path: Path, column: str) -> Iterator[tuple[str, int]]:
    consumed = 0

    def pieces() -> Iterator[tuple[int, str]]:
        nonlocal consumed
        for number, piece, position in read_lines(path, cut=True, longest=PIECE_OF_JSON):
            consumed = position
            yield number, decode(piece, path, number)

    for where, row in read_records(pieces(), str(path)):
        yield _text_of(row, column, where), consumed


def _text_of(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise UsageError(f"{where}: {no_column(column, row)}")
    value = row[column]
    if value is None or value != value:  # NaN
        return ""
    if not isinstance(value, str):
        raise UsageError(f"{where}: column {column!r} is not text but {type(value).__name__}")
    return without_surrogates(value)


def read_lines(
    path: Path, cut: bool = False, longest: int | None = None
) -> Iterator[tuple[int, bytes, int]]:
    """Yields line number, line and bytes of the file read so far.

    Byte order marks at the start of lines are left out: where files were joined, each had one.
    A line longer than `longest` bytes is cut to pieces of the same number, or else refused.

    Raises:
      UsageError: the file cannot be read, is damaged, or not text; names the line.
    """
    longest = longest or _LONGEST
    number = 1
    rest = b""
    try:
        with open_bytes(path) as (file, stream):
            while piece := stream.readline(longest - len(rest)):
                line = rest + piece
                rest = b""
                if len(line) >= longest and not line.endswith(b"\n"):
                    if not cut:
                        raise UsageError(f"{path}:{number}: line of over {longest >> 20} MiB")
                    end = _end_of_piece(line)
                    line, rest = line[:end], line[end:]
                yield number, line.removeprefix(_BYTE_ORDER_MARK), file.tell()
                number += line.endswith(b"\n")
            if rest:
                yield number, rest, file.tell()
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        raise UsageError(
            f"{path}: corrupt or truncated {path.suffix} file, after line {number - 1}: {error}"
        ) from error


def _end_of_piece(line: bytes) -> int:
    """The position to cut a too long line at: after the last space, or before a character."""
    space = line.rfind(b" ", len(line) // 2)
    if space >= 0:
        return space + 1
    end = len(line) - 1
    while end > len(line) - 4 and line[end] & 0xC0 == 0x80:  # the inside of a character
        end -= 1
    return end


def decode(line: bytes, path: Path | str, number: int) -> str:
    """The text of a line.

    Raises:
      UsageError: it is not UTF-8; names the line.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{number}: not valid UTF-8: {error.reason}") from error


def no_column(column: str, columns: Iterable[Any]) -> str:
    """The message for a missing column."""
    return f"no column {column!r}; there are: {', '.join(map(str, columns)) or 'none'}"


def first_line(error: Exception) -> str:
    """The first line of a library's error, without what else it prints."""
    return (str(error).splitlines() or [type(error).__name__])[0]
