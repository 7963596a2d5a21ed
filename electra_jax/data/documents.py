"""Sources of text: documents, one after another, from files and data sets.

A source is written as a scheme and an address:

- `text:GLOB`: UTF-8 text, one paragraph a line, a blank line between documents;
- `lines:GLOB`: UTF-8 text, a document a line;
- `jsonl:GLOB`: one JSON object a line, or an array of objects, the text in a column;
- `parquet:GLOB`: the text in a column;
- `arrow:GLOB`: the same in Arrow files, or in the folder of a data set that the datasets library
  saved (`save_to_disk`);
- `tfds:NAME[/CONFIG][:SPLIT]`: a prepared TensorFlow data set (split "train" by default);
- `docs:` or `docs:NAME,NAME`: the documentation of the installed Python packages.

Text and JSON may be compressed: `.gz`, `.xz`, `.bz2`, `.zst`. Everything is streamed. A text
document longer than 64 MiB is cut there, at a line or a space, so that memory stays flat.
"""

import contextlib
import dataclasses
import difflib
import functools
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from electra_jax.data import installed_docs
from electra_jax.data.arrow_files import check_arrow, read_arrow
from electra_jax.data.parquet_files import open_parquet, read_parquet
from electra_jax.data.text_files import (
    Files,
    Find,
    find_files,
    first_line,
    no_column,
    read_json_lines,
    read_text,
    read_text_lines,
)
from electra_jax.errors import UsageError

REASONS_TO_DROP = ("empty", "too short", "too long", "duplicate")


@dataclasses.dataclass(frozen=True)
class DocumentOptions:
    """Options of reading documents, and of leaving some out.

    Attributes:
      column: the column that holds the text, in `jsonl`, `parquet`, `arrow` and `tfds`.
      min_characters: shorter documents are dropped.
      max_characters: longer documents are dropped; None keeps all.
      deduplicate: drops documents equal to an earlier one, in any of the sources. Takes
        about 16 bytes of memory a document.
      data_dir: where `tfds` data sets lie; by default the environment variable
        TFDS_DATA_DIR, or else ~/tensorflow_datasets.
    """

    column: str = "text"
    min_characters: int = 0
    max_characters: int | None = None
    deduplicate: bool = False
    data_dir: str | None = None

    def reason_to_drop(self, text: str) -> str | None:
        """Why a document is left out, whatever other documents there are."""
        if not text:
            return "empty"
        if len(text) < self.min_characters:
            return "too short"
        if self.max_characters is not None and len(text) > self.max_characters:
            return "too long"
        return None


class Part(Protocol):
    """A part of a source that is read by itself; may be sent to another process."""

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields a document and the bytes read so far."""


class Documents:
    """The documents of several sources, read one source after another.

    Each iteration starts anew and gives the same documents in the same order.

    Attributes:
      fraction: share of the input's bytes (compressed, where files are) that the latest
        iteration has read so far, from 0 to 1; None before the first.
      dropped: documents left out by the latest iteration, by reason.
    """

    def __init__(
        self,
        sources: Sequence[str],
        options: DocumentOptions = DocumentOptions(),
        find: Find = find_files,
    ) -> None:
        """Looks the sources up, the files of a glob with `find`; no text is read yet.

        Raises:
          UsageError: no source, an unknown scheme, a glob that matches no file, a data set
            that is not prepared, or a missing column of a data set or a parquet file.
        """
        if isinstance(sources, str):
            sources = [sources]
        if not sources:
            raise UsageError("no source of documents given")
        self.options = options
        self.fraction: float | None = None
        self.dropped: dict[str, int] = {}
        self._names = list(sources)
        self._sources = [_open_source(source, options, find) for source in sources]

    def __iter__(self) -> Iterator[str]:
        """Yields documents: stripped text that is not empty.

        Raises:
          UsageError: the input is corrupt or holds no document at all; the message names
            the file and, where there is one, the line.
        """
        self.fraction = 0.0
        self.dropped = dict.fromkeys(REASONS_TO_DROP, 0)
        total = sum(source.size for source in self._sources) or 1
        before = 0
        kept = 0
        seen = _Seen()
        for source in self._sources:
            for text, consumed in source.read():
                self.fraction = min(1.0, (before + consumed) / total)
                text = text.strip()
                reason = self.options.reason_to_drop(text)
                if not reason and self.options.deduplicate and not seen.add(text):
                    reason = "duplicate"
                if reason:
                    self.dropped[reason] += 1
                else:
                    kept += 1
                    yield text
            before += source.size
        self.fraction = 1.0
        if not kept:
            raise self.none_kept()

    def none_kept(self) -> UsageError:
        """The error for sources of which no document is kept, as `dropped` tells."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.dropped.items() if n)
        return UsageError(
            f"no documents in {' '.join(self._names)}"
            + (f": all were dropped ({reasons})" if reasons else "")
        )

    def parts(self) -> list[Part]:
        """The parts of the sources, in order: files, and sources that are not files."""
        parts: list[Part] = []
        for name, source in zip(self._names, self._sources, strict=True):
            if isinstance(source, Files):
                parts += source.files
            else:
                parts.append(_Reopened(name, self.options, source.describe()))
        return parts

    def describe(self) -> dict[str, Any]:
        """A description of the sources as JSON values; equal for equal input.

        Files are known by name and content; data sets and packages by name and version.
        """
        options = dataclasses.asdict(self.options)
        del options["data_dir"]  # where a data set lies does not change it
        return {
            "options": options,
            "sources": [
                {"source": name, **source.describe()}
                for name, source in zip(self._names, self._sources, strict=True)
            ],
        }


def digest(text: str) -> bytes:
    """16 bytes that no other text has."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Seen:
    """Texts met so far, by a hash of 128 bits.

    Most hashes stay in a sorted array, 16 bytes each; the latest are in a set, which costs
    six times as much, and are merged into the array from time to time.
    """

    def __init__(self, fewest_merged: int = 1 << 18) -> None:
        self._fewest_merged = fewest_merged
        self._sorted = np.empty(0, "S16")
        self._latest: set[bytes] = set()

    def add(self, text: str) -> bool:
        """Adds `text`; returns False if it was there already."""
        # NumPy takes zero bytes at the end of a byte string for padding. All hashes have one
        # length, so none is mistaken for another.
        key = digest(text)
        if key in self._latest:
            return False
        position = int(np.searchsorted(self._sorted, np.bytes_(key)))
        if position < len(self._sorted) and self._sorted[position] == key.rstrip(b"\0"):
            return False
        self._latest.add(key)
        if len(self._latest) >= max(self._fewest_merged, len(self._sorted) // 16):
            latest = np.array(list(self._latest), "S16")
            self._sorted = np.sort(np.concatenate([self._sorted, latest]))
            self._latest.clear()
        return True


class _Source(Protocol):
    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self) -> Iterator[tuple[str, int]]:
        """Yields a document and the bytes read so far."""

    def describe(self) -> dict[str, Any]:
        """The part of `Documents.describe` that tells this source."""


@dataclasses.dataclass(frozen=True)
class _Reopened:
    """A source that is opened again where it is read."""

    source: str
    options: DocumentOptions
    description: dict[str, Any]

    def read(self) -> Iterator[tuple[str, int]]:
        source = _open_source(self.source, self.options, find_files)
        if source.describe() != self.description:
            raise UsageError(
                f"{self.source} is not the same on all machines: {source.describe()} there,"
                f" {self.description} here"
            )
        return source.read()


_SCHEMES = ("text", "lines", "jsonl", "parquet", "arrow", "tfds", "docs")


def _open_source(source: str, options: DocumentOptions, find: Find) -> _Source:
    scheme, colon, address = source.partition(":")
    if scheme == "text" and colon:
        return Files(source, address, read_text, find)
    if scheme == "lines" and colon:
        return Files(source, address, read_text_lines, find)
    if scheme == "jsonl" and colon:
        read = functools.partial(read_json_lines, column=options.column)
        return Files(source, address, read, find)
    if scheme == "parquet" and colon:
        read = functools.partial(read_parquet, column=options.column)
        files = Files(source, address, read, find)
        for file in files.files:
            if "://" not in file.path:  # another machine's are looked at when they are read
                open_parquet(Path(file.path), options.column).close()
        return files
    if scheme == "arrow" and colon:
        read = functools.partial(read_arrow, column=options.column)
        if os.path.isdir(os.path.expanduser(address)):
            address = os.path.join(address, "*.arrow")
        files = Files(source, address, read, find)
        for file in files.files:
            if "://" not in file.path:
                check_arrow(Path(file.path), options.column)
        return files
    if scheme == "docs" and colon:
        return _InstalledDocs(address)
    if scheme == "tfds" and colon:
        return _TensorFlowDataset(address, options)
    if scheme == "ids" and colon:
        raise UsageError(f"{source} holds token ids, not text: only `prepare` takes them")
    if not colon and glob.glob(os.path.expanduser(source)):
        suggestion = f"did you mean text:{source}?"
    elif nearest := difflib.get_close_matches(scheme, _SCHEMES, n=1):
        suggestion = f"did you mean {nearest[0]}:{address}?"
    else:
        suggestion = f"a source starts with {', '.join(f'{name}:' for name in _SCHEMES)}"
    raise UsageError(f"unknown source {source!r}: {suggestion}")


class _TensorFlowDataset:
    """A split of a prepared TensorFlow data set. Never downloads."""

    def __init__(self, address: str, options: DocumentOptions) -> None:
        name, _, split = address.partition(":")
        self._column = options.column
        self._split = split or "train"
        self._builder = load_builder(name, options.data_dir)
        info = self._builder.info
        try:
            # Takes slices too, such as train[:10%].
            chosen = info.splits[self._split]
            self._examples, self.size = chosen.num_examples, chosen.num_bytes
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"tfds:{address}: no split {self._split!r}; there are: {', '.join(info.splits)}"
            ) from error
        features = dict(info.features) if hasattr(info.features, "keys") else {}
        if self._column not in features:
            raise UsageError(f"tfds:{address}: {no_column(self._column, sorted(features))}")
        feature = features[self._column]
        if feature.shape != () or feature.np_dtype not in (np.str_, np.object_):
            raise UsageError(f"tfds:{address}: column {self._column!r} is not text but {feature}")

    def read(self) -> Iterator[tuple[str, int]]:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        dataset = self._builder.as_dataset(
            split=self._split,
            decoders=tfds.decode.PartialDecoding({self._column: True}),
            # In file order, and not held in memory, which small data sets are by default.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        number = 0
        try:
            for number, example in enumerate(dataset.as_numpy_iterator(), start=1):
                text = example[self._column].decode("utf-8")
                yield text, self.size * number // max(1, self._examples)
        except UnicodeDecodeError as error:
            place = f"{self._builder.info.full_name}: example {number}"
            raise UsageError(f"tfds:{place}: not valid UTF-8: {error.reason}") from error
        except tf.errors.OpError as error:
            place = f"{self._builder.info.full_name}: corrupt after example {number}"
            raise UsageError(f"tfds:{place}: {first_line(error)}") from error

    def describe(self) -> dict[str, Any]:
        return {
            "dataset": self._builder.info.full_name,  # ends in the version
            "split": self._split,
            "examples": self._examples,
            "bytes": self.size,
        }


def load_builder(name: str, data_dir: str | None) -> Any:
    """A prepared TensorFlow data set. Never downloads.

    Raises:
      UsageError: it is not prepared, or TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            f"tfds:{name} needs tensorflow and tensorflow-datasets, which are not installed"
        ) from error
    # Reading text takes no GPU memory away from training.
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        # From files alone: the class that could download is never looked up.
        return tfds.core.read_only_builder.builder_from_files(
            name.split("/")[0],
            data_dir=os.path.expanduser(folder),
            config="/".join(name.split("/")[1:]) or None,
        )
    except (tfds.core.DatasetNotFoundError, OSError, ValueError, AssertionError) as error:
        raise UsageError(
            f"tfds:{name}: not prepared in {folder}; prepare it with"
            f" `tfds build {name} --data_dir={folder}`, or give another folder"
            " (TFDS_DATA_DIR)"
        ) from error


class _InstalledDocs:
    """The documentation of installed packages, all of them or those named."""

    def __init__(self, address: str) -> None:
        names = [name.strip() for name in address.split(",")] if address else None
        self._packages = installed_docs.find_packages(names or installed_docs.PACKAGES)

    @functools.cached_property
    def _found(self) -> list[Path]:
        return installed_docs.find_sources(self._packages)

    @functools.cached_property
    def size(self) -> int:
        return sum(file.stat().st_size for file in self._found)

    def read(self) -> Iterator[tuple[str, int]]:
        return installed_docs.read_documents(self._found)

    def describe(self) -> dict[str, Any]:
        return {"packages": self._packages, "rules": installed_docs.RULES}
