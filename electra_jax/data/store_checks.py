"""What must be true of a token store: of its manifest, its arrays, and their bytes."""

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from electra_jax.errors import UsageError
from electra_jax.system.json_files import reading

SPLITS = ("train", "validation")
TOKENS, DOCUMENTS = "tokens.npy", "documents.npy"
CURE = "prepare the store again, or copy it anew"
BLOCK = 1 << 20  # bytes or numbers, looked at together
SAMPLED = 32  # blocks of tokens that are looked at where a store is opened
SAMPLE = 1 << 11  # tokens of such a block: a page
_MOST = 2**48  # of anything that is counted


class Split(NamedTuple):
    """The documents of one split; document i is tokens[documents[i] : documents[i + 1]]."""

    name: str
    folder: Path
    tokens: np.ndarray  # uint16 or uint32, a memory map
    documents: np.ndarray  # int64 [documents + 1], a memory map
    vocab_size: int  # above all ids
    checksum: str  # that documents.npy should have


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Refuses a manifest that does not describe the arrays of both splits.

    Raises:
      UsageError, LookupError, TypeError, AttributeError: as `json_files.reading` explains them.
    """
    _check_count(manifest["tokenizer"]["vocab_size"], most=2**31)
    _check_text(manifest["tokenizer"]["identity"])
    for name in SPLITS:
        for count in ("tokens", "documents"):
            _check_count(manifest["splits"][name][count])
    manifest["settings"].keys()
    train = manifest["splits"]["train"]
    entropy = train.get("unigram_entropy", 0.0)
    if not isinstance(entropy, float | int) or not math.isfinite(entropy):
        raise UsageError(f"its unigram_entropy is {entropy!r:.40}, not a number")
    unknown = train.get("unknown_of_both_splits", {"tokens": 0, "characters": {}})
    for count in (unknown["tokens"], *unknown["characters"].values()):
        _check_count(count)
    files = {f"{name}/{array}" for name in SPLITS for array in (TOKENS, DOCUMENTS)}
    if manifest["files"].keys() != files:
        raise UsageError(f"its files are not {', '.join(sorted(files))}")
    for entry in manifest["files"].values():
        _check_count(entry["bytes"])
        _check_text(entry["sha256"])


def _check_count(value: Any, most: int = _MOST) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise UsageError(f"{value!r:.40} is not a count")


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{value!r:.40} is not text")


def check_sample(split: Split) -> None:
    """Looks at the ends of the documents, and at some of the tokens.

    Raises:
      UsageError: the documents do not go from the first token to the last, or a token is not of
        the vocabulary.
    """
    ends = split.documents[[0, -1]].tolist()
    if ends != [0, len(split.tokens)]:
        raise UsageError(
            f"{split.folder / DOCUMENTS} is damaged: it goes from {ends[0]:,} to {ends[1]:,}, and "
            f"there are {len(split.tokens):,} tokens: {CURE}"
        )
    last = max(0, len(split.tokens) - SAMPLE)
    for begin in np.unique(np.linspace(0, last, SAMPLED).astype(np.int64)):
        check_ids(split, split.tokens[begin : begin + SAMPLE])


def check_ids(split: Split, tokens: np.ndarray) -> None:
    """Refuses tokens of a split that its vocabulary has not.

    Raises:
      UsageError: names the first.
    """
    if len(tokens) and tokens.max() >= split.vocab_size:
        first = tokens[tokens >= split.vocab_size][0]
        raise UsageError(
            f"{split.folder / TOKENS} is damaged: it holds the id {first:,}, and the vocabulary "
            f"has {split.vocab_size:,}: {CURE}"
        )


def check_all_ids(split: Split) -> None:
    """Looks at all tokens (see `check_ids`)."""
    for begin in range(0, len(split.tokens), BLOCK):
        check_ids(split, split.tokens[begin : begin + BLOCK])


def check_order(split: Split) -> None:
    """Reads where all documents start.

    Raises:
      UsageError: a document starts before the one before it.
    """
    for begin in range(0, len(split.documents) - 1, BLOCK):
        if (np.diff(split.documents[begin : begin + BLOCK + 1]) < 0).any():
            raise UsageError(
                f"{split.folder / DOCUMENTS} is damaged: its documents are not in order: {CURE}"
            )


def checksum(path: Path, seen: Callable[[int], None] = lambda size: None) -> str:
    """The SHA-256 of a file.

    Args:
      seen: is told the bytes of each block that is read, and may raise.

    Raises:
      UsageError: it cannot be read.
    """
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with reading(path), path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
            seen(size)
    return digest.hexdigest()
