"""The record in a folder of a tokenizer: what made it, and whether its files are those of then."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError
from electra_jax.system.json_files import read_object, seal, unseal

# Folders of WordPiece have version 1, as they always had; 2 has a tokenizer.json.
FORMAT_VERSION = 2
RECORD_NAME = "electra_jax_tokenizer.json"
KNOWN = (
    "format_version", "kind", "lower_case", "strip_accents", "roles", "normalization",
    "vocab_size", "identity",
)  # fmt: skip


def make_record(settings: Mapping[str, Any], identity: str, content: bytes) -> dict[str, Any]:
    """The record of a tokenizer whose file has this content."""
    digest = hashlib.sha256(content).hexdigest()
    return seal({**settings, "identity": identity, "sha256": digest})


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a folder.

    Raises:
      UsageError: it is damaged, or of a newer version.
    """
    record = read_object(folder / RECORD_NAME)
    if record["format_version"] > FORMAT_VERSION:
        raise UsageError(
            f"its format is {record['format_version']}, newer than {FORMAT_VERSION}, the newest"
            " that this version reads; upgrade electra-jax"
        )
    return unseal(record, KNOWN)


def check_unchanged(record: Mapping[str, Any], identity: str, content: bytes) -> None:
    """Compares a tokenizer, and its file's content, with its record.

    Raises:
      UsageError: they are not those that were saved.
    """
    digest = hashlib.sha256(content).hexdigest()
    # Records of version 0.1 know what determines ids, and no more of the file.
    if (record["identity"], record.get("sha256", digest)) != (identity, digest):
        raise UsageError(
            "its files were altered since it was saved; train it again or copy it anew"
        )
