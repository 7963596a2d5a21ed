"""Arrays that are made once and kept, with what they were made of and a checksum.

A file is a line of JSON, and the arrays' bytes one after another. One of another origin, or a
damaged one, is as good as none.
"""

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.errors import UsageError
from electra_jax.system.atomic_files import atomic_path
from electra_jax.system.json_files import DAMAGE, check_regular, short_reason

log = logging.getLogger(__name__)

_LONGEST_HEADER = 4096  # bytes


def keep_arrays(path: Path, origin: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes one-dimensional arrays that were made of `origin`; where nothing can be written, not.

    Args:
      path: of the file.
      origin: all that the arrays are made of, as JSON values.
      arrays: by name.
    """
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    lengths = {name: len(values) for name, values in arrays.items()}
    header = {"origin": origin, "lengths": lengths, "crc32": _checksum(*arrays.values())}
    try:
        with atomic_path(path) as partial, partial.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for values in arrays.values():
                file.write(values.data)
    except OSError as error:
        log.debug("%s is not kept: %s", path, error)


def kept_arrays(
    path: Path, origin: Mapping[str, Any], kinds: Mapping[str, type]
) -> dict[str, np.ndarray] | None:
    """The arrays that were kept; None if there are none of this origin, or damaged ones.

    Args:
      path, origin: as they were kept.
      kinds: types of the arrays by name.
    """
    try:
        size = check_regular(path)
        with path.open("rb") as file:
            header = json.loads(file.readline(_LONGEST_HEADER))
            if header["origin"] != origin:
                log.info("%s was made of something else, and is made anew", path)
                return None
            lengths = [header["lengths"][name] for name in kinds]
            ends = np.cumsum([0, *map(_bytes, lengths, kinds.values())]).tolist()
            if file.tell() + ends[-1] != size:
                raise ValueError("its size is another one")
            content = file.read()
        if _checksum(content) != header["crc32"]:
            raise ValueError("its checksum differs")
        return {
            name: np.frombuffer(content, kind, length, offset)
            for (name, kind), length, offset in zip(kinds.items(), lengths, ends[:-1], strict=True)
        }
    except FileNotFoundError:
        return None
    except (UsageError, *DAMAGE) as error:
        log.warning("%s is damaged, and is made anew: %s", path, short_reason(error))
        return None


def _bytes(length: Any, kind: type) -> int:
    if type(length) is not int or not 0 <= length < 2**48:
        raise ValueError("a length is not a count")
    return length * np.dtype(kind).itemsize


def _checksum(*parts: bytes | np.ndarray) -> int:
    """Tells rot, at several GB/s; what else may be wrong with an array its readers check."""
    total = 0
    for part in parts:
        total = zlib.crc32(part.data if isinstance(part, np.ndarray) else part, total)
    return total
