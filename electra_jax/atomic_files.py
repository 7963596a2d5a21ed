"""Files that a kill leaves whole: the old content or the new, never a part."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` when the block ends without an error.

    Processes of several hosts may write the same file at once: the last one to end wins.
    """
    path = Path(path)
    writer = f"{socket.gethostname()}-{os.getpid()}"
    partial = path.with_name(f"{path.stem}.{writer}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a file in UTF-8."""
    with atomic_path(path) as partial:
        partial.write_text(text, "utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Writes a JSON file."""
    write_text(path, json.dumps(content, indent=2) + "\n")
