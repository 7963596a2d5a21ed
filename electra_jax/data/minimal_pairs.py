"""Minimal pairs: an acceptable sentence beside one that differs from it and is not.

Files are JSON lines with BLiMP's fields (Warstadt et al., 2020): `sentence_good`,
`sentence_bad`, the paradigm in `UID`, and the phenomenon that it belongs to in
`linguistics_term`. The last two may be missing: all pairs are then one group.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from electra_jax.data.labelled import Row, read_file
from electra_jax.data.text_files import find_files, read_lines
from electra_jax.errors import UsageError

ONE_GROUP = "all"  # the name of a paradigm or phenomenon that a file does not name


class MinimalPair(NamedTuple):
    """Two sentences, of which a model should find the first likelier."""

    good: str
    bad: str
    paradigm: str
    phenomenon: str
    where: str  # such as pairs.jsonl:12


def read_minimal_pairs(pattern: str, per_paradigm: int = 0) -> list[MinimalPair]:
    """The pairs of a file, or of all files of a glob.

    Args:
      pattern: JSON lines, perhaps compressed (.gz, .xz, .zst).
      per_paradigm: only the first pairs of each paradigm, this many; 0: all.

    Raises:
      UsageError: no file or no pair there, or a line that is not a pair; names it.
    """
    pairs: list[MinimalPair] = []
    counts: dict[str, int] = {}
    for path in _files(pattern):
        for pair in map(_pair, read_file(path, "jsonl")):
            count = counts[pair.paradigm] = counts.get(pair.paradigm, 0) + 1
            if not per_paradigm or count <= per_paradigm:
                pairs.append(pair)
    if not pairs:
        raise UsageError(f"minimal pairs: there is no pair in {pattern}")
    return pairs


def fingerprint(pattern: str) -> str:
    """A hash of the files of a glob, for processes to compare.

    Raises:
      UsageError: there is no file.
    """
    digest = hashlib.sha256()
    for path in _files(pattern):
        for _, line, _ in read_lines(path):
            digest.update(line)
    return digest.hexdigest()[:16]


def _files(pattern: str) -> list[Path]:
    paths = sorted(path for path, *_ in find_files(pattern))
    if not paths:
        raise UsageError(f"minimal pairs: {pattern} matches no file")
    return [Path(path) for path in paths]


def _pair(row: Row) -> MinimalPair:
    good, bad = (_text(row, column) for column in ("sentence_good", "sentence_bad"))
    groups = (row.text(name) if name in row.fields else "" for name in ("UID", "linguistics_term"))
    paradigm, phenomenon = (group or ONE_GROUP for group in groups)
    return MinimalPair(good, bad, paradigm, phenomenon, row.where)


def _text(row: Row, column: str) -> str:
    value = row.value(column)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{row.where}: {column} is not a sentence but {value!r:.60}")
    return value
