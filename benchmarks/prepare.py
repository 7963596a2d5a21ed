"""Megabytes of text a second that `prepare` turns into a token store.

    python benchmarks/prepare.py text:GLOB --workers 2

Trains a WordPiece and a unigram SentencePiece tokenizer on the first documents, then
prepares the whole text with each; stores go to a temporary directory.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from electra_jax.data.documents import Documents
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer

TRAINING_DOCUMENTS = 2000
VOCAB_SIZE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    documents = Documents([args.source])
    print("kind       workers  MB/s  M tokens/s")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("wordpiece", "unigram"):
            some = itertools.islice(iter(documents), TRAINING_DOCUMENTS)
            tokenizer = train_tokenizer(some, kind=kind, vocab_size=VOCAB_SIZE)
            start = time.perf_counter()
            store = prepare(
                documents, tokenizer, Path(folder) / kind,
                workers=args.workers, validation_share=0.02, source=documents.describe(),
            )  # fmt: skip
            seconds = time.perf_counter() - start
            train = store.manifest["splits"]["train"]
            megabytes = train["text_bytes_of_both_splits"] / 1e6
            print(
                f"{kind:10} {args.workers:7} {megabytes / seconds:5.1f} "
                f"{train['tokens'] / 1e6 / seconds:11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
