"""Verifies what lies on a disk: that a token store or a run is whole, bit for bit."""

import time
from pathlib import Path

from electra_jax.data.token_store import MANIFEST, TokenStore
from electra_jax.errors import UsageError
from electra_jax.inference.finetuned import load
from electra_jax.run_directory import CONFIG_FILE
from electra_jax.system.progress import Progress
from electra_jax.training.checkpoint import FOLDER


def verify(path: str | Path, progress: bool = False) -> str:
    """Reads a token store or a run directory, and says in a line what was compared.

    Raises:
      UsageError: it is neither, or a file of it is not what it should be; names it.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return verify_store(path, progress)
    if (path / CONFIG_FILE).is_file() and (path / FOLDER).is_dir():
        return verify_run(path)
    raise UsageError(
        f"{path} is neither a token store (it has no {MANIFEST}) nor a run directory (no "
        f"{CONFIG_FILE} and {FOLDER}/)"
    )


def verify_run(path: Path) -> str:
    """Loads the model of each checkpoint: config, tokenizer, labels, and digests of parameters."""
    steps = sorted(
        int(folder.name) for folder in (path / FOLDER).iterdir() if folder.name.isdigit()
    )
    if not steps:
        raise UsageError(f"{path / FOLDER} holds no checkpoint yet")
    start = time.monotonic()
    for step in steps:
        load(path, str(step))
    return (
        f"{path}: the models of checkpoints {', '.join(map(str, steps))} are as they were saved "
        f"({time.monotonic() - start:.1f} s); moments of the optimizer are compared on resuming"
    )


def verify_store(path: Path, progress: bool) -> str:
    """Compares all checksums, ids, the order of documents and the tokenizer of a store."""
    store = TokenStore.open(path)
    start = time.monotonic()
    with Progress(store.size, unit="B", label="verify", shown=progress) as bar:
        store.verify(bar.add)
    rate = store.size / 1e9 / max(time.monotonic() - start, 1e-9)
    counts = store.manifest["splits"].values()
    tokens, documents = (sum(split[name] for split in counts) for name in ("tokens", "documents"))
    return (
        f"{path}: {tokens:,} tokens of {documents:,} documents are as they were prepared "
        f"({len(store.manifest['files'])} files, {store.size:,} bytes, {rate:.2f} GB/s)"
    )
