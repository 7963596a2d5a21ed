"""Bytes of files, compressed or not; other kinds of files are refused by their first bytes."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from electra_jax.errors import UsageError

# What the readers raise on damaged input. An OSError without a number is theirs, too.
DAMAGE = (EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError, MemoryError)
READ_SIZE = 1 << 20
_INPUT_SIZE = 1 << 16
_ZSTANDARD_INPUT_SIZE = 1 << 9  # small: 4 bytes of input can unfold to 128 KiB
_HEAD = 512  # bytes: a tar header


class _Compression(NamedTuple):
    endings: tuple[str, ...]
    start: bytes  # of such files, as a regular expression
    open: Callable[[BinaryIO], Any]


class _Streams(io.RawIOBase):
    """The streams of a compressed file, one after another, with zero bytes between them or none.

    The readers of the standard library take a damaged later stream of .xz or .bz2 for the end of
    the file, and that of `zstandard` takes a truncated file for a whole one.
    """

    def __init__(self, file: BinaryIO, start: Callable[[], Any]) -> None:
        self._file, self._start = file, start
        self._stream: Any = None
        self._input = self._output = b""
        self._first = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if self._stream is None and not self._next_stream():
                return 0
            self._output = self._decompress(len(buffer))
            if self._stream.eof:
                self._input = self._stream.unused_data + self._input
                self._stream = None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _next_stream(self) -> bool:
        """Starts the next stream; returns False at the end of the file."""
        self._input = self._input.lstrip(b"\0")
        while not self._input:
            data = self._file.read(_INPUT_SIZE)
            if not data:
                if self._first:
                    raise EOFError("there is nothing compressed in it")
                return False
            self._input = data.lstrip(b"\0")
        self._stream, self._first = self._start(), False
        return True

    def _decompress(self, most: int) -> bytes:
        data = b""
        if self._stream.needs_input:
            data = self._input or self._file.read(_INPUT_SIZE)
            self._input = b""
            if not data:
                raise EOFError("the last stream has no end")
        return self._stream.decompress(data, most)


class _ZstandardStreams(_Streams):
    """Zstandard's decompressor holds nothing back, so it is fed little at a time."""

    def _decompress(self, most: int) -> bytes:
        del most
        data = self._input or self._file.read(_ZSTANDARD_INPUT_SIZE)
        if not data:
            raise EOFError("the last frame has no end")
        data, self._input = data[:_ZSTANDARD_INPUT_SIZE], data[_ZSTANDARD_INPUT_SIZE:]
        return self._stream.decompress(data)


class _Frame:
    """A frame of Zstandard, with the names that the standard library's decompressors use."""

    def __init__(self) -> None:
        # The largest window there is: archives of text are often made with it.
        decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
        self._frame = decompressor.decompressobj()
        self.decompress = self._frame.decompress

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data


def _open_gzip(file: BinaryIO) -> gzip.GzipFile:
    if not file.read(1):
        raise EOFError("there is nothing compressed in it")
    file.seek(0)
    return gzip.GzipFile(fileobj=file)


_COMPRESSIONS = (
    _Compression((".gz", ".gzip", ".bgz", ".tgz"), rb"\x1f\x8b", _open_gzip),
    _Compression(
        (".xz", ".lzma", ".txz"),
        rb"\xfd7zXZ\0",
        lambda file: _Streams(file, lzma.LZMADecompressor),
    ),
    _Compression(
        (".bz2", ".tbz", ".tbz2"),
        rb"BZh[1-9]1AY&SY",  # text may begin with the first letters
        lambda file: _Streams(file, bz2.BZ2Decompressor),
    ),
    _Compression(
        (".zst", ".zstd", ".tzst"),
        rb"\x28\xb5\x2f\xfd",
        lambda file: _ZstandardStreams(file, _Frame),
    ),
)
# First bytes of files that are not text → what they are, and what to do about it.
_OTHERS = {
    b"PK\x03\x04": "is a zip archive (or a spreadsheet): unpack it and name the files in it",
    b"PK\x05\x06": "is an empty zip archive",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it and name the files in it",
    b"Rar!\x1a\x07": "is a RAR archive: unpack it and name the files in it",
    b"\x1f\x9d": "is compressed by `compress`: unpack it with `gzip -d`",
    b"\x04\x22\x4d\x18": "is compressed by lz4: unpack it with `lz4 -d`",
    b"PAR1\x15": "is a parquet file: write parquet:PATH",
    b"ARROW1\0": "is an Arrow file: write arrow:PATH, or for labelled rows save it as parquet",
    b"Obj\x01": "is an Avro file: write it as parquet or JSON lines",
    b"\x89HDF": "is an HDF5 file: write it as parquet or JSON lines",
    b"SQLite format 3\0": "is an SQLite database: write its table as CSV",
    b"%PDF-": "is a PDF file: take the text out of it first (`pdftotext`)",
    b"\xff\xfe": "is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`",
}
_TAR = "is a tar archive: unpack it (`tar -xf`) and name the files in it"
ARCHIVES = (".zip", ".tar", ".7z", ".rar", ".tgz", ".txz", ".tbz", ".tbz2", ".tzst")


def is_compressed(path: Path | str) -> bool:
    """Whether the ending is that of a compressed file."""
    return any(Path(path).suffix.lower() in kind.endings for kind in _COMPRESSIONS)


def format_ending(path: Path | str) -> str:
    """The ending in lower case, before that of the compression where there is one."""
    path = Path(path)
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower()


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[tuple[BinaryIO, io.BufferedReader]]:
    """Opens a file; gives it as it is, to tell how far it is read, and its bytes decompressed.

    The ending tells the compression, or else the first bytes.

    Raises:
      UsageError: the file is damaged, cannot be opened, or is an archive or of another format
        that is not text.
    """
    ending = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(0)
        kinds = [kind for kind in _COMPRESSIONS if ending in kind.endings]
        kinds += [kind for kind in _COMPRESSIONS if re.match(kind.start, start)]
        raw: Any = kinds[0].open(file) if kinds else file
        stream = io.BufferedReader(raw, READ_SIZE)
        try:
            refuse_other_formats(stream.peek(_HEAD)[:_HEAD], path)
            yield file, stream
        finally:
            stream.detach()
            if raw is not file:
                raw.close()


def refuse_other_formats(head: bytes, name: Path | str) -> None:
    """Refuses what begins like an archive, or like another format that is not text.

    Raises:
      UsageError: names what it is, and what to do.
    """
    for start, message in _OTHERS.items():
        if head.startswith(start):
            raise UsageError(f"{name} {message}")
    zeros = head.count(0)
    if not zeros:
        return
    if len(head) >= tarfile.BLOCKSIZE:
        with contextlib.suppress(tarfile.HeaderError):
            tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
            raise UsageError(f"{name} {_TAR}")
    if zeros > len(head) // 4:
        raise UsageError(
            f"{name} is not text: it holds zero bytes; if it is UTF-16 or UTF-32, convert it with"
            " `iconv -t UTF-8`"
        )
