"""Documents into tokens, some at a time, in one process or several.

How documents are cut into chunks and how many processes share them changes no token.
"""

import collections
import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.system.ending import held_back
from electra_jax.system.workers import worker_pool

CHUNK_CHARACTERS = 250_000  # of documents tokenized together
CHUNKS_AHEAD = 4  # a worker


class Chunk(NamedTuple):
    """Some documents in turn, tokenized."""

    tokens: np.ndarray  # uint16 or uint32, one document after another
    lengths: np.ndarray  # int64, tokens of each document
    hashes: np.ndarray  # float64, of each document's text, in [0, 1)
    text_bytes: int  # UTF-8; of ids that existed, the bytes of their file
    unknown: np.ndarray  # int64 [characters, 2], those that have no piece, and how often each is


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest type that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def cut(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about CHUNK_CHARACTERS."""
    chunk, size = [], 0
    for text in documents:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def tokenize(
    documents: Iterable[str], tokenizer: Tokenizer, folder: Path, workers: int
) -> Generator[Chunk]:
    """Tokenized chunks in order, a few of them ahead of the one that is asked for.

    Args:
      folder: where other processes find the tokenizer.
      workers: processes; 1 works in this one.

    Raises:
      UsageError: a worker died.
    """
    if workers == 1:
        for texts in cut(documents):
            yield encode(tokenizer, texts)
        return
    executor = worker_pool(workers, _start_worker, (folder,))
    pending: collections.deque = collections.deque()
    try:
        for texts in cut(documents):
            with held_back():  # a worker that is half started would say so
                pending.append(executor.submit(_encode_in_worker, texts))
            if len(pending) > CHUNKS_AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise UsageError(
            "a worker died, for want of memory perhaps: try fewer --workers"
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)  # they end with their chunk


_worker_tokenizer: Tokenizer


def _start_worker(folder: Path) -> None:
    global _worker_tokenizer
    os.environ["RAYON_NUM_THREADS"] = "1"  # one process a core, not threads besides
    try:
        _worker_tokenizer = load_tokenizer(folder)
    except UsageError:  # gone with the process that this one works for
        os._exit(1)


def _encode_in_worker(texts: list[str]) -> Chunk:
    return encode(_worker_tokenizer, texts)


def encode(tokenizer: Tokenizer, texts: list[str]) -> Chunk:
    """Tokenizes some documents."""
    dtype = token_dtype(tokenizer.vocab_size)
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    hashes = [
        int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / 2**48 for text in encoded
    ]
    ids = tokenizer.encode_arrays(texts)
    unknown: collections.Counter[str] = collections.Counter()
    if not tokenizer.knows_every_text:
        for text, text_ids in zip(texts, ids, strict=True):
            if (text_ids == tokenizer.unk_id).any():
                for character in tokenizer.unknown_characters(text):
                    unknown[character] += text.count(character)
    return Chunk(
        np.concatenate(ids).astype(dtype) if ids else np.zeros(0, dtype),
        np.array([len(i) for i in ids], np.int64),
        np.array(hashes),
        sum(map(len, encoded)),
        np.array([(ord(c), n) for c, n in sorted(unknown.items())], np.int64).reshape(-1, 2),
    )
