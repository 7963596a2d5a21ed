"""Verifies what lies on a disk: that a token store or a run is whole, bit for bit."""

import time
from pathlib import Path

from tqdm import tqdm

from electra_jax.data.token_store import MANIFEST, TokenStore
from electra_jax.errors import UsageError


def verify(path: str | Path, progress: bool = False) -> str:
    """Reads a token store whole, and says in a line what was compared.

    Raises:
      UsageError: it is not a token store, or a file of it is not what it should be; names it.
    """
    path = Path(path)
    if not (path / MANIFEST).is_file():
        raise UsageError(f"{path} is not a token store: it has no {MANIFEST}")
    return verify_store(path, progress)


def verify_store(path: Path, progress: bool) -> str:
    """Compares all checksums, ids, the order of documents and the tokenizer of a store."""
    store = TokenStore.open(path)
    start = time.monotonic()
    with tqdm(
        desc="verify", total=store.size, unit="B", unit_scale=True, disable=not progress
    ) as bar:
        store.verify(bar.update)
    rate = store.size / 1e9 / max(time.monotonic() - start, 1e-9)
    counts = store.manifest["splits"].values()
    tokens, documents = (sum(split[name] for split in counts) for name in ("tokens", "documents"))
    return (
        f"{path}: {tokens:,} tokens of {documents:,} documents are as they were prepared "
        f"({len(store.manifest['files'])} files, {store.size:,} bytes, {rate:.2f} GB/s)"
    )
