"""Token ids that exist, as other programs leave them, into a store; nothing is tokenized again.

`ids:GLOB` names files of three kinds:

- `.npy`: an array of whole numbers; of two dimensions, each row is a document;
- `.bin`: little-endian numbers without a header, uint16 if the vocabulary has at most 65,536
  pieces and else uint32; a name that ends in `.uint16.bin` or `.uint32.bin` says which;
- `.parquet`: a document a row, its ids in the column `input_ids` or that of `--column`.

A flat array is divided at the tokenizer's separator ([SEP], or the end-of-text token that has its
role). A store's documents have no special tokens around them: [CLS] at the start of a document,
[SEP] and padding at both ends are left out. A document of over 16M tokens is cut there.
"""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.chunks import Chunk, token_dtype
from electra_jax.data.documents import DocumentOptions
from electra_jax.data.parquet_files import read_parquet_lists
from electra_jax.data.text_files import Found, checksum, find_files, found_or_refused
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)

SCHEME = "ids:"
COLUMN = "input_ids"
LONGEST = 1 << 24  # tokens of a document
_BLOCK = 1 << 20  # tokens looked at together
_CHUNK = 1 << 16  # tokens of a chunk, or a document more
_TEXT_OPTIONS = ("min_characters", "max_characters", "deduplicate")
_ENDINGS = (".npy", ".bin", ".parquet")


def are_ids(sources: Sequence[str]) -> bool:
    """Whether sources are of ids; those of text are not mixed with them.

    Raises:
      UsageError: some are, and some are not.
    """
    ids = [source for source in sources if source.startswith(SCHEME)]
    if ids and len(ids) < len(sources):
        raise UsageError(
            f"{ids[0]} holds ids and other sources hold text: prepare a store of each, and mix "
            "them by --config.data.store=A,B"
        )
    return bool(ids)


class TokenIds:
    """The documents of sources of ids, one file after another.

    Attributes:
      fraction: share of the files' bytes that has been read; None before the first.
    """

    def __init__(
        self, sources: Sequence[str], tokenizer: Tokenizer, options: DocumentOptions
    ) -> None:
        """Looks the files up; the tokenizer is that which the ids are of.

        Raises:
          UsageError: no file, one of another kind, or options that are of text.
        """
        given = dataclasses.asdict(options)
        for field in dataclasses.fields(DocumentOptions):
            if field.name in _TEXT_OPTIONS and given[field.name] != field.default:
                flag = field.name.replace("_", "-")
                raise UsageError(f"--{flag} is of text: {sources[0]} holds token ids")
        # "text" is the default of all other sources.
        self._column = COLUMN if options.column == "text" else options.column
        self._tokenizer = tokenizer
        self._files: dict[str, list[Found]] = {
            source: found_or_refused(source, source.removeprefix(SCHEME), find_files)
            for source in sources
        }
        for file in self._all_files():
            if Path(file.path).suffix.lower() not in _ENDINGS:
                raise UsageError(f"{file.path}: ids are read from {', '.join(_ENDINGS)}")
        self.fraction: float | None = None

    def describe(self) -> dict[str, Any]:
        """A description of the sources as JSON values; equal for equal input."""
        return {
            "column": self._column,
            "separator": self._tokenizer.sep_id,
            "sources": [
                {
                    "source": source,
                    "files": [
                        {
                            "name": os.path.basename(file.path),
                            "bytes": file.size,
                            "sha256": checksum(file.path),
                        }
                        for file in files
                    ],
                }
                for source, files in self._files.items()
            ],
        }

    def chunks(self) -> Generator[Chunk]:
        """Yields all documents, some together.

        Raises:
          UsageError: a file cannot be read, or holds an id that the vocabulary has not.
        """
        total = sum(file.size for file in self._all_files()) or 1
        before = 0
        for file in self._all_files():
            documents: list[np.ndarray] = []
            size = done = 0
            for document, share in self._read(Path(file.path)):
                documents.append(self._without_special(document))
                size += len(document)
                if size >= _CHUNK:
                    now = int(share * file.size)
                    yield self._chunk(documents, now - done)
                    self.fraction = (before + now) / total
                    documents, size, done = [], 0, now
            if documents:
                yield self._chunk(documents, file.size - done)
            before += file.size
            self.fraction = before / total

    def _all_files(self) -> list[Found]:
        return [file for files in self._files.values() for file in files]

    def _read(self, path: Path) -> Iterator[tuple[np.ndarray, float]]:
        """Yields documents, checked, as arrays of uint32, and the share that has been read."""
        if path.suffix.lower() == ".parquet":
            row = 0
            for row, (ids, share) in enumerate(read_parquet_lists(path, self._column), start=1):
                for start in range(0, len(ids), LONGEST):
                    part = ids[start : start + LONGEST]
                    yield self._checked(part, f"{path}: row {row}"), share
            return
        array = self._map(path)
        if array.ndim == 1:
            yield from self._split(array, path)
            return
        for row, ids in enumerate(array, start=1):
            yield self._checked(ids, f"{path}: row {row}"), row / len(array)

    def _map(self, path: Path) -> np.ndarray:
        """The array of a file, one row or several, as a memory map."""
        try:
            if path.suffix.lower() == ".bin":
                dtype = self._dtype(path)
                if not path.stat().st_size:
                    return np.zeros(0, dtype)
                if rest := path.stat().st_size % dtype.itemsize:
                    raise UsageError(
                        f"{path}: {rest} bytes are left over of numbers of type {dtype}: cut, or "
                        "of another type (name it .uint16.bin or .uint32.bin)"
                    )
                return np.memmap(path, dtype, "r")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{path}: not a readable array: {reason}") from error
        if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
            raise UsageError(
                f"{path}: not ids: {array.ndim} dimensions of type {array.dtype}; wanted are one "
                "or two, of whole numbers"
            )
        return array

    def _dtype(self, path: Path) -> np.dtype:
        for name in ("uint16", "uint32"):
            if path.name.lower().endswith(f".{name}.bin"):
                return np.dtype(name).newbyteorder("<")
        return token_dtype(self._tokenizer.vocab_size).newbyteorder("<")

    def _split(self, array: np.ndarray, path: Path) -> Iterator[tuple[np.ndarray, float]]:
        """The documents of a flat array: what lies between separators."""
        rest: list[np.ndarray] = []
        held = separators = 0
        for begin in range(0, len(array), _BLOCK):
            block = self._checked(array[begin : begin + _BLOCK], f"{path}: from id {begin:,}")
            ends = np.flatnonzero(block == self._tokenizer.sep_id)
            separators += len(ends)
            start = 0
            for end in ends.tolist():
                yield np.concatenate([*rest, block[start:end]]), (begin + end) / len(array)
                rest, held, start = [], 0, end + 1
            rest.append(block[start:])
            held += len(block) - start
            if held >= LONGEST:
                yield np.concatenate(rest), begin / len(array)
                rest, held = [], 0
        if held:
            yield np.concatenate(rest), 1.0
        if not separators and len(array):
            piece = self._tokenizer.pieces([self._tokenizer.sep_id])[0]
            log.warning(
                "%s: its %s ids are one document, as none is the separator %s (%d); name another "
                "by --special-token sep=TOKEN",
                path, f"{len(array):,}", piece, self._tokenizer.sep_id,
            )  # fmt: skip

    def _checked(self, ids: np.ndarray, where: str) -> np.ndarray:
        size = self._tokenizer.vocab_size
        wrong = (ids < 0) | (ids >= size)
        if wrong.any():
            raise UsageError(
                f"{where}: there is the id {int(ids[wrong][0]):,}, and the vocabulary of the "
                f"tokenizer has {size:,}: ids of another tokenizer, or of another type"
            )
        return np.asarray(ids, np.uint32)

    def _without_special(self, ids: np.ndarray) -> np.ndarray:
        """Ids without the special tokens at both ends."""
        tokenizer = self._tokenizer
        mine = ~np.isin(ids, (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id))
        kept = np.flatnonzero(mine)
        return ids[kept[0] : kept[-1] + 1] if len(kept) else ids[:0]

    def _chunk(self, documents: list[np.ndarray], size: int) -> Chunk:
        hashes = [
            # Of the same ids on any machine.
            int.from_bytes(hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=6).digest())
            / 2**48
            for ids in documents
        ]
        return Chunk(
            np.concatenate(documents).astype(token_dtype(self._tokenizer.vocab_size)),
            np.array([len(ids) for ids in documents], np.int64),
            np.array(hashes),
            size,
            np.zeros((0, 2), np.int64),  # characters are not known
        )
