"""JSON files that stand beside models, runs and stores, read on the guard.

They may be cut, damaged, of another program, or written by somebody else: whatever they
hold, what is wrong with them is told in one line.
"""

import contextlib
import hashlib
import json
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError

LARGEST = 256 << 20  # bytes; a tokenizer.json of a large vocabulary has some 30 MB
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Explains in one line, with the file's name, what a damaged file causes in the block.

    Raises:
      UsageError: the block fails as it does where a file cannot be read, or does not hold what
        it should.
    """
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except DAMAGE as error:
        raise UsageError(f"{path} cannot be read: {short_reason(error)}") from error


def short_reason(error: BaseException) -> str:
    """The first line of an error, shortened."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, LookupError):
        return f"{error.args[0]!r} is missing" if error.args else repr(error)
    return (str(error).strip() or repr(error)).splitlines()[0][:200]


def read_bytes(path: str | Path, most: int = LARGEST) -> bytes:
    """The content of a small file.

    Raises:
      UsageError: it is missing, cannot be read, is not a regular file (a pipe would wait for
        ever), or is larger than `most` bytes.
    """
    with reading(path):
        size = check_regular(path)
        if size > most:
            raise UsageError(f"it has {size:,} bytes, and at most {most:,} are read")
        return Path(path).read_bytes()


def check_regular(path: str | Path) -> int:
    """The bytes of a file.

    Raises:
      UsageError: it is something else, which may have no end or never begin.
      OSError: there is none.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a regular file")
    return status.st_size


def read_json(path: str | Path) -> Any:
    """The value of a JSON file.

    Raises:
      UsageError: as `read_bytes`, or it is not UTF-8, not JSON, or nested too deeply.
    """
    with reading(path):
        return parse_json(read_bytes(path))


def read_object(path: str | Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
      UsageError: as `read_json`, or it holds another kind of value.
    """
    with reading(path):
        return parse_object(read_bytes(path))


def parse_json(content: bytes) -> Any:
    """The value that JSON in UTF-8 holds.

    Raises:
      UsageError: it is nested too deeply.
      ValueError: it is not UTF-8, or not JSON.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise UsageError("it is nested too deeply") from None


def parse_object(content: bytes) -> dict[str, Any]:
    """The object that JSON in UTF-8 holds.

    Raises:
      UsageError: as `parse_json`, or it holds another kind of value.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise UsageError(f"cannot be read: it holds a {type(value).__name__}, not an object")
    return value


CHECKSUM = "checksum"


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object as JSON will have it, with a checksum of all that is in it."""
    content = json.loads(json.dumps({**content}))
    return {**content, CHECKSUM: _checksum(content)}


def unseal(content: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The inverse of `seal`; an object of before there were checksums is returned as it is.

    Args:
      content: read from a file.
      known: the names that an object without a checksum may have. Another one may be that
        of the checksum, damaged.

    Raises:
      UsageError: it is not what was sealed.
    """
    inside = {name: value for name, value in content.items() if name != CHECKSUM}
    if CHECKSUM in content:
        if content[CHECKSUM] != _checksum(inside):
            raise UsageError("its content is not that of its checksum: damaged, or edited by hand")
    elif unknown := set(inside) - set(known):
        raise UsageError(f"it has no checksum, and something unknown in it: {min(unknown)!r:.40}")
    return inside


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
