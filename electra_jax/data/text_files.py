"""Text out of files: plain text, JSON lines and parquet, compressed or not, streamed."""

import dataclasses
import glob
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet
import zstandard

from electra_jax.errors import UsageError

Reader = Callable[[Path], Iterator[tuple[str, int]]]  # see `read_text`
Find = Callable[[str], list[tuple[str, int]]]  # see `find_files`

_LONGEST = 64 << 20  # bytes of text held at once
_READ_SIZE = 1 << 20
_ZSTANDARD_READ_SIZE = 1 << 10  # small: 4 bytes of input can unfold to 128 KiB


@dataclasses.dataclass(frozen=True)
class File:
    """A file of documents; may be sent to another process.

    Attributes:
      path: where it is.
      size: bytes.
      reader: yields the documents of a path, and the bytes read so far.
    """

    path: str
    size: int
    reader: Reader

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields documents, and the bytes of the file read so far."""
        return self.reader(Path(self.path))


def find_files(pattern: str) -> list[tuple[str, int]]:
    """Paths and sizes of the files of a glob."""
    pattern = os.path.expanduser(pattern)
    matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
    return [(match, os.path.getsize(match)) for match in matches if os.path.isfile(match)]


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
        self.files = [File(path, size, reader) for path, size in sorted(find(pattern))]
        if not self.files:
            folder = os.path.isdir(os.path.expanduser(pattern))
            raise UsageError(
                f"{source} {'names a folder: add /*' if folder else 'matches no file'}"
            )
        self.size = sum(file.size for file in self.files)

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields documents, and the bytes of all files read so far."""
        before = 0
        for file in self.files:
            for text, consumed in file.read():
                yield text, before + consumed
            before += file.size

    def describe(self) -> dict[str, Any]:
        """Names and sizes of the files."""
        return {
            "files": [
                {"name": os.path.basename(file.path), "bytes": file.size} for file in self.files
            ]
        }


def read_text(path: Path) -> Iterator[tuple[str, int]]:
    """Yields paragraphs, a line each, between blank lines; and the bytes read so far."""
    lines: list[str] = []
    held = consumed = 0
    for number, line, consumed in read_lines(path, cut=True):
        text = decode(line, path, number).strip()
        if lines and (not text or held + len(line) > _LONGEST):
            yield "\n".join(lines), consumed
            lines = []
            held = 0
        if text:
            lines.append(text)
            held += len(line)
    if lines:
        yield "\n".join(lines), consumed


def read_json_lines(path: Path, column: str) -> Iterator[tuple[str, int]]:
    """Yields the text of each line's `column`, "" for null, and the bytes read so far."""
    for number, line, consumed in read_lines(path, cut=False):
        text = decode(line, path, number).strip()
        if not text:
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{path}:{number}: not a JSON object")
        if column not in row:
            raise UsageError(f"{path}:{number}: {no_column(column, row)}")
        value = row[column]
        if not isinstance(value, str | None):
            raise UsageError(
                f"{path}:{number}: column {column!r} is not text but {type(value).__name__}"
            )
        yield without_surrogates(value or ""), consumed


def read_lines(path: Path, cut: bool = False) -> Iterator[tuple[int, bytes, int]]:
    """Yields line number, line and bytes of the file read so far.

    A line longer than `_LONGEST` is cut to pieces of the same number, or else refused.
    """
    number = 1
    rest = b""
    try:
        with open(path, "rb") as file, _decompress(file, path) as stream:
            while piece := stream.readline(_LONGEST - len(rest)):
                line = rest + piece
                rest = b""
                if len(line) >= _LONGEST and not line.endswith(b"\n"):
                    if not cut:
                        raise UsageError(f"{path}:{number}: line of over {_LONGEST >> 20} MiB")
                    end = _end_of_piece(line)
                    line, rest = line[:end], line[end:]
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line, file.tell()
                number += line.endswith(b"\n")
            if rest:
                yield number, rest, file.tell()
    except (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
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


def _decompress(file: BinaryIO, path: Path) -> io.BufferedReader:
    wrap = _DECOMPRESSORS.get(path.suffix)
    return io.BufferedReader(wrap(file) if wrap else file, _READ_SIZE)  # type: ignore[arg-type]


class _ZstandardReader(io.RawIOBase):
    """Reads `.zst`; unlike the library's own reader it notices a truncated file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._input = self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            data = self._input or self._file.read(_ZSTANDARD_READ_SIZE)
            if not data:
                if self._frame:
                    raise EOFError("the last frame has no end")
                return 0
            if not self._frame:
                # The largest window there is: archives of text are often made with it.
                decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
                self._frame = decompressor.decompressobj()
            self._output = self._frame.decompress(data)
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count


_DECOMPRESSORS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".xz": lzma.LZMAFile,
    ".zst": _ZstandardReader,
}


def decode(line: bytes, path: Path | str, number: int) -> str:
    """The text of a line.

    Raises:
      UsageError: it is not UTF-8; names the line.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{number}: not valid UTF-8: {error.reason}") from error


def without_surrogates(text: str) -> str:
    r"""Replaces halves of surrogate pairs, which JSON can write (\ud83d) and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def no_column(column: str, columns: Iterable[Any]) -> str:
    """The message for a missing column."""
    return f"no column {column!r}; there are: {', '.join(map(str, columns)) or 'none'}"


def open_parquet(path: Path, column: str) -> pyarrow.parquet.ParquetFile:
    """Opens a parquet file whose `column` is text.

    Raises:
      UsageError: it is not.
    """
    try:
        # A buffer makes column chunks come in pieces; without it they are read whole.
        file = pyarrow.parquet.ParquetFile(path, buffer_size=_READ_SIZE)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file: {first_line(error)}") from error
    schema = file.schema_arrow
    if column not in schema.names:
        raise UsageError(f"{path}: {no_column(column, schema.names)}")
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UsageError(f"{path}: column {column!r} is not text but {kind}")
    return file


def read_parquet(path: Path, column: str) -> Iterator[tuple[str, int]]:
    """Yields the text of each row's `column`, "" for null, and about the bytes read so far."""
    row = 0
    try:
        with open_parquet(path, column) as file:
            size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0):
                    row += 1
                    yield value.as_py() or "", size * row // rows
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: row {row}: not valid UTF-8: {error.reason}") from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: corrupt after row {row}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of a library's error, without what else it prints."""
    return (str(error).splitlines() or [type(error).__name__])[0]
