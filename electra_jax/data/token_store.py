"""Tokens on disk: prepared in parallel, checked, opened as a memory map.

A store is a directory:

    manifest.json           version, counts, checksums, tokenizer, source and settings
    tokenizer/              as `load_tokenizer` reads it
    train/tokens.npy        uint16 or uint32, all documents one after another
    train/documents.npy     int64, where each document starts, and where the last ends
    validation/…            the same, for documents held out by a hash of their text

It is written under a temporary name and renamed when it is whole.
"""

import collections
import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.data.array_files import ArrayFile, map_array
from electra_jax.data.chunks import Chunk, token_dtype, tokenize
from electra_jax.data.store_checks import (
    CURE,
    DOCUMENTS,
    SPLITS,
    TOKENS,
    Split,
    check_all_ids,
    check_manifest,
    check_order,
    check_sample,
    checksum,
)
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.data.tokenizer_record import RECORD_NAME
from electra_jax.errors import UsageError
from electra_jax.system.atomic_files import atomic_folder, is_free, write_json
from electra_jax.system.json_files import read_object, reading, seal, unseal
from electra_jax.system.progress import Progress

log = logging.getLogger(__name__)

STORE_VERSION = 1
MANIFEST = "manifest.json"
KNOWN = ("version", "settings", "tokenizer", "splits", "files")  # in a manifest
UNKNOWN_CHARACTERS = 10  # the commonest, that a manifest names
FEW_HELD_OUT = 20_000  # tokens
MOST_UNKNOWN = 0.01  # share of tokens, without a warning


class TokenStore:
    """A finished store.

    Attributes:
      path: its directory.
      manifest: what it says about itself.
      identity: a hash of tokens and tokenizer; equal stores train equal models.
      size: bytes of its arrays.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        """Takes a manifest, and maps the arrays that it describes.

        Raises:
          UsageError: an array is missing, or is not as it describes it.
        """
        self.path = path
        self.manifest = manifest
        with reading(path / MANIFEST):
            check_manifest(manifest)
        files = json.dumps([manifest["files"], manifest["tokenizer"]["identity"]], sort_keys=True)
        self.identity = hashlib.sha256(files.encode()).hexdigest()[:16]
        self.size = sum(entry["bytes"] for entry in manifest["files"].values())
        self._check_sizes()
        self._splits = {name: self._map(name) for name in SPLITS}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "TokenStore":
        """Opens a store; headers, sizes and a sample of the ids are checked, `verify` reads all.

        Raises:
          UsageError: not a store, one of a newer version, or one with a file missing, cut or
            damaged.
        """
        path = Path(path)
        file = path / MANIFEST
        with reading(path):
            there = file.is_file()
        if not there:
            raise UsageError(f"{path} is not a token store: it has no {MANIFEST} (see `prepare`)")
        manifest = read_object(file)
        with reading(file):
            if manifest["version"] > STORE_VERSION:
                raise UsageError(
                    f"{path} has version {manifest['version']}, this program reads up to "
                    f"{STORE_VERSION}: upgrade"
                )
            manifest = unseal(manifest, KNOWN)
        return cls(path, manifest)

    def split(self, name: str) -> Split:
        """The split "train" or "validation", as memory maps."""
        return self._splits[name]

    def _check_sizes(self) -> None:
        for name, entry in self.manifest["files"].items():
            file, size = self.path / name, entry["bytes"]
            with reading(file):
                found = file.stat().st_size if file.is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found:,} bytes, not {size:,}"
                raise UsageError(f"{file} {state}: {CURE}")

    def _map(self, name: str) -> Split:
        folder, counts = self.path / name, self.manifest["splits"][name]
        vocab_size = self.manifest["tokenizer"]["vocab_size"]
        try:
            split = Split(
                name,
                folder,
                map_array(folder / TOKENS, token_dtype(vocab_size), counts["tokens"]),
                map_array(folder / DOCUMENTS, np.dtype(np.int64), counts["documents"] + 1),
                vocab_size,
                self.manifest["files"][f"{name}/{DOCUMENTS}"]["sha256"],
            )
        except UsageError as error:
            raise UsageError(f"{error}: {CURE}") from error
        check_sample(split)
        return split

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the store was made with.

        Raises:
          UsageError: it is not the one that the manifest names.
        """
        tokenizer = load_tokenizer(self.path / "tokenizer")
        known = self.manifest["tokenizer"]
        if (tokenizer.identity, tokenizer.vocab_size) != (known["identity"], known["vocab_size"]):
            raise UsageError(f"{self.path}/tokenizer was changed: {CURE}")
        return tokenizer

    def describe_unknown(self) -> str:
        """The share of unknown tokens, and what they stand for; "" if the store does not say."""
        splits = self.manifest["splits"]
        found = splits["train"].get("unknown_of_both_splits")
        if found is None:
            return ""
        share = found["tokens"] / max(1, sum(splits[name]["tokens"] for name in SPLITS))
        text = f"unknown tokens: {share:.2%}"
        if found["characters"]:
            counts = (f"{c!r} {count:,}" for c, count in found["characters"].items())
            text += f" (characters without a piece: {', '.join(counts)})"
        if share > MOST_UNKNOWN:
            log.warning(
                "%.1f %% of the tokens are unknown, which the model cannot tell apart: train a "
                "larger vocabulary (--vocab-size), or --kind unigram, to which no text is unknown",
                100 * share,
            )
        return text

    def verify(self, seen: Callable[[int], None] = lambda size: None) -> None:
        """Reads all files, and compares them with their checksums and with each other.

        Args:
          seen: is told the bytes of each block that is read, and may raise.

        Raises:
          UsageError: names the file that differs.
        """
        for name, entry in self.manifest["files"].items():
            if checksum(self.path / name, seen) != entry["sha256"]:
                raise UsageError(f"{self.path / name} is damaged: {CURE}")
        for split in self._splits.values():
            check_order(split)
            check_all_ids(split)
        self.tokenizer  # noqa: B018 - raises if it is not the one that the manifest names
        record = self.path / "tokenizer" / RECORD_NAME
        if not record.is_file():
            raise UsageError(f"{record} is missing: {CURE}")


def prepare(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    output: str | os.PathLike[str],
    *,
    workers: int | None = None,
    validation_share: float = 0.005,
    source: Any = None,
    progress: bool = True,
) -> TokenStore:
    """Tokenizes documents into a store; a store that is already there is checked and kept.

    The bytes of the store do not depend on the number of workers. An interrupted
    preparation leaves nothing behind that the next one would not clear away.

    Args:
      documents: texts; a `fraction` attribute, where there is one, gives the progress bar
        its estimate of the time left.
      workers: processes; 1 works in this one; None takes all cores.
      validation_share: of documents held out, by a hash of their text.
      source: what the documents are, as JSON values, for the manifest.

    Raises:
      UsageError: the output holds something else, or a store of other settings; another
        process is preparing it; no document has a token; the disk is full.
    """
    workers = workers or os.cpu_count() or 1
    if workers < 1:
        raise UsageError(f"--workers={workers}: at least 1")
    return write_store(
        lambda folder: tokenize(documents, tokenizer, folder, workers),
        tokenizer,
        output,
        validation_share=validation_share,
        source=source,
        fraction=lambda: getattr(documents, "fraction", None),
        progress=progress,
    )


def write_store(
    tokenized: Callable[[Path], Generator[Chunk]],
    tokenizer: Tokenizer,
    output: str | os.PathLike[str],
    *,
    validation_share: float,
    source: Any,
    fraction: Callable[[], float | None],
    progress: bool,
) -> TokenStore:
    """Writes what is tokenized here or elsewhere; what `prepare` says of a store holds for it.

    Args:
      tokenized: gives the chunks in order; called if there is work to do, with a folder that
        holds the tokenizer.
      fraction: share of the work that is done; None if that is not known.

    Raises:
      UsageError: as `prepare`.
    """
    output = Path(output)
    if not 0 <= validation_share < 1:
        raise UsageError(f"--validation-share={validation_share}: from 0 to below 1")
    settings = {
        "tokenizer": tokenizer.identity,
        "validation_share": validation_share,
        "source": json.loads(json.dumps(source)),
    }
    existing = _existing(output, settings)
    if existing:
        return existing
    with atomic_folder(output, MANIFEST) as partial:
        tokenizer.save(partial / "tokenizer")
        with contextlib.closing(tokenized(partial / "tokenizer")) as chunks:
            counts = _write(chunks, tokenizer, partial, validation_share, fraction, progress)
        if not counts["train"]["tokens"]:
            raise UsageError("no document has a token: there is nothing to learn from")
        manifest = _manifest(partial, settings, tokenizer, counts)
        write_json(partial / MANIFEST, seal(manifest))
    if not counts["validation"]["documents"] and validation_share:
        log.warning(
            "no document is held out: there are too few, or --validation-share is too small"
        )
    elif 0 < counts["validation"]["tokens"] < FEW_HELD_OUT:
        log.warning(
            "only %s tokens are held out: metrics on so few say little, raise --validation-share",
            f"{counts['validation']['tokens']:,}",
        )
    return TokenStore.open(output)


def _manifest(
    folder: Path, settings: dict[str, Any], tokenizer: Tokenizer, counts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "version": STORE_VERSION,
        "settings": settings,
        "tokenizer": {
            "identity": tokenizer.identity,
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
        },
        "splits": counts,
        "files": {
            f"{split}/{name}.npy": {
                "bytes": (folder / split / f"{name}.npy").stat().st_size,
                "sha256": checksum(folder / split / f"{name}.npy"),
            }
            for split in SPLITS
            for name in ("tokens", "documents")
        },
    }


def _existing(output: Path, settings: dict[str, Any]) -> TokenStore | None:
    """The store that is there already, if it is the one asked for."""
    if is_free(output):
        return None
    store = TokenStore.open(output)
    for name, value in settings.items():
        before = store.manifest["settings"].get(name)
        with reading(output / MANIFEST):
            agrees = _agrees(before, value)
        if not agrees:
            detail = f" ({before!r}, not {value!r})"
            if name == "source":
                changed = _changed_file(before, value)
                detail = f" ({changed} was changed)" if changed else ""
            raise UsageError(
                f"{output} was prepared with another {name}{detail}: choose another --output, "
                "or remove it"
            )
    store.verify()
    log.info("%s is already prepared", output)
    return store


CONTENT_KEYS = {"sha256", "modified"}  # of a file's description; stores of before have neither


def _agrees(before: Any, now: Any) -> bool:
    """Whether settings are equal, as far as those of before say something."""
    if isinstance(before, dict) and isinstance(now, dict):
        unknown = CONTENT_KEYS - before.keys()
        return before.keys() == now.keys() - unknown and all(
            _agrees(value, now[key]) for key, value in before.items()
        )
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_agrees, before, now))
    return before == now


def _changed_file(before: Any, now: Any) -> str:
    """The name of the first file that both descriptions have and that is not the same; or ""."""
    if isinstance(before, dict) and isinstance(now, dict):
        if before.get("name") == now.get("name") and "bytes" in before and not _agrees(before, now):
            return str(now["name"])
        before, now = list(before.values()), list(now.values())
    if isinstance(before, list) and isinstance(now, list):
        return next(filter(None, map(_changed_file, before, now)), "")
    return ""


def _write(
    chunks: Iterable[Chunk],
    tokenizer: Tokenizer,
    folder: Path,
    validation_share: float,
    fraction: Callable[[], float | None],
    progress: bool,
) -> dict[str, dict[str, Any]]:
    """Writes the arrays of both splits; returns their counts."""
    dtype = token_dtype(tokenizer.vocab_size)
    frequencies = {split: np.zeros(tokenizer.vocab_size, np.int64) for split in SPLITS}
    totals: dict[str, dict[str, Any]] = {s: {"tokens": 0, "documents": 0} for s in SPLITS}
    text_bytes = unknown_tokens = 0
    unknown: collections.Counter[str] = collections.Counter()
    with contextlib.ExitStack() as stack:
        files = {
            (split, name): stack.enter_context(ArrayFile(folder / split / f"{name}.npy", kind))
            for split in SPLITS
            for name, kind in (("tokens", dtype), ("documents", np.dtype(np.int64)))
        }
        for split in SPLITS:
            files[split, "documents"].append(np.zeros(1, np.int64))
        bar = stack.enter_context(Progress(unit="B", label="text", shown=progress))
        for chunk in chunks:
            held_out = chunk.hashes < validation_share
            of_token = np.repeat(held_out, chunk.lengths)
            for split, mine in (("train", ~held_out), ("validation", held_out)):
                mine &= chunk.lengths > 0
                total = totals[split]
                lengths = chunk.lengths[mine]
                tokens = chunk.tokens[of_token == (split == "validation")]
                files[split, "tokens"].append(tokens)
                files[split, "documents"].append(total["tokens"] + np.cumsum(lengths))
                total["tokens"] += len(tokens)
                total["documents"] += len(lengths)
                frequencies[split] += np.bincount(tokens, minlength=tokenizer.vocab_size)
            text_bytes += chunk.text_bytes
            for character, count in chunk.unknown.tolist():
                unknown[chr(character)] += count
            if not tokenizer.knows_every_text:
                unknown_tokens += int(np.count_nonzero(chunk.tokens == tokenizer.unk_id))
            bar.add(chunk.text_bytes)
            bar.estimate(fraction())
    if totals["validation"]["tokens"] and not totals["train"]["tokens"]:
        # Of so few documents, the hashes may hold all out.
        totals = dict(zip(SPLITS, reversed(totals.values()), strict=True))
        frequencies = dict(zip(SPLITS, reversed(frequencies.values()), strict=True))
        for old, new in (("train", "other"), ("validation", "train"), ("other", "validation")):
            (folder / old).rename(folder / new)
    train = totals["train"]
    most = int(frequencies["train"].argmax())
    train["most_frequent"] = {
        "piece": tokenizer.pieces([most])[0],
        "share": frequencies["train"][most] / max(1, train["tokens"]),
    }
    train["unigram_entropy"] = entropy(frequencies["train"])
    train["text_bytes_of_both_splits"] = text_bytes
    commonest = sorted(unknown, key=lambda c: (-unknown[c], c))[:UNKNOWN_CHARACTERS]
    train["unknown_of_both_splits"] = {
        "tokens": unknown_tokens,
        "characters": {character: unknown[character] for character in commonest},
    }
    return totals


def entropy(counts: np.ndarray) -> float:
    """The entropy of the distribution that counts give, in nats; 0 without any."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return -float(shares @ np.log(shares))
