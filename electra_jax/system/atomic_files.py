"""Files and folders that a kill leaves whole: the old content or the new, never a part.

Each is written under another name beside it and renamed when it is whole and on the disk. What a
kill leaves of that is cleared away by the next process that writes the same, and nothing else is:
an unfinished folder bears a mark of this program, and an unfinished file the number of the
process that made it.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError
from electra_jax.system.ending import cleaned_up
from electra_jax.system.locks import LOCK_FILE, hold, is_running, one_writer

MARK = ".electra-jax-unfinished"  # in a folder that is being written: what is moved out of it
LOCK_SUFFIX = ".lock"
DISCARD_TRIES, DISCARD_SECONDS = 10, 0.1
# Where a folder cannot be renamed, its content is moved: mount points, mounted buckets.
NOT_RENAMED = {
    errno.EBUSY, errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST, errno.EINVAL, errno.ENOSYS,
    errno.EOPNOTSUPP, errno.EPERM, errno.EACCES,
}  # fmt: skip


_unfinished: set[str] = set()  # folders that this process is writing


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` when the block ends without an error.

    Processes of several hosts may write the same file at once: the last one to end wins. A link
    stays, and what it leads to is replaced; a file that is replaced keeps its permissions.
    """
    path = _real(path)
    name, host = path.stem, socket.gethostname()
    partial = path.with_name(f"{name}.{host}-{os.getpid()}.partial{path.suffix}")
    _clear_partials(path, f"{name}.{host}-")
    try:
        with cleaned_up(lambda: partial.unlink(missing_ok=True)):
            yield partial
            if path.is_file():
                partial.chmod(stat.S_IMODE(path.stat().st_mode))
            _flush(partial)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _real(path: str | Path) -> Path:
    """Where a path leads.

    Raises:
      OSError: nowhere, as its links lead in a circle.
    """
    real = os.path.realpath(path)
    if os.path.islink(real):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return Path(real)


def _clear_partials(path: Path, prefix: str) -> None:
    """Removes what processes of this host that are dead have left of a file."""
    suffix = f".partial{path.suffix}"
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if entry.name.startswith(prefix) and entry.name.endswith(suffix):
                pid = entry.name[len(prefix) : -len(suffix)]
                if pid.isdecimal() and not is_running(int(pid)) and not entry.is_dir():
                    entry.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes a file in UTF-8; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, content: Any) -> None:
    """Writes a JSON file."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def output_path(path: str | Path) -> Iterator[Path]:
    """As `atomic_path`, for a path that a user names as output: a device or a pipe stays one."""
    if _is_stream(path):
        yield Path(path)
        return
    with atomic_path(path) as partial:
        yield partial


def _is_stream(path: str | Path) -> bool:
    """Whether a path is to be written straight into: what is there is not a regular file."""
    if os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True  # /dev/stdout may be a file, which is not this program's to replace
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return not stat.S_ISREG(mode)


@contextlib.contextmanager
def atomic_folder(path: str | Path, last: str = "", update: bool = False) -> Iterator[Path]:
    """A folder to write to, which takes the name `path` when the block ends without an error.

    It is locked, and on an error nothing is left of it. Where a folder cannot be renamed (`path`
    is a mount point, or in a mounted bucket) what it holds is moved, one thing after another.

    Args:
      path: nothing, or an empty folder.
      last: the name of what is moved last, without which the rest counts for nothing.
      update: whether `path` may hold something; it is then yielded itself, locked, and files in
        it are to be written by `atomic_path`.

    Raises:
      UsageError: `path` is not empty, another process writes it, it cannot be written, or
        something else has the name of the unfinished folder.
    """
    try:
        shown, path = path, _real(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    staging = _staging(path)
    if update and str(path) in _unfinished:
        yield path
        return
    if update and _content(path, staging):
        with one_writer(path):
            yield path
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold(staging.with_name(staging.name + LOCK_SUFFIX), Path(shown)):
            _clear(staging, path, shown)
            try:
                with cleaned_up(lambda: _discard(staging)):
                    staging.mkdir()
                    (staging / MARK).write_text("[]")
                    _unfinished.add(str(staging))
                    yield staging
                    _publish(staging, path, last)
            except BaseException:
                with contextlib.suppress(OSError):
                    _discard(staging)
                raise
            finally:
                _unfinished.discard(str(staging))
    except OSError as error:
        name = str(error.filename or path)
        if name.startswith(str(staging)) or str(path).startswith(name):
            raise UsageError(f"{shown} cannot be written: {error.strerror or error}") from error
        raise


def is_free(path: str | Path) -> bool:
    """Whether `atomic_folder` takes a path: nothing is there, or no more than a kill has left.

    Raises:
      UsageError: it cannot be read.
    """
    real = Path(os.path.realpath(path))
    try:
        return not _content(real, _staging(real))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _staging(path: Path) -> Path:
    """Where a folder lies until it is whole: beside its place, or in it if there is no way."""
    if path.is_dir() and (os.path.ismount(path) or not os.access(path.parent, os.W_OK)):
        return path / ".unfinished"
    return path.with_name(f".{path.name}.partial")


def _content(path: Path, staging: Path) -> list[str]:
    """The names in a folder, but for what an unfinished writing has left in it."""
    if not path.is_dir():
        return [path.name] if os.path.lexists(path) else []
    if _is_marked(path):
        return []  # it was killed right after it had been renamed
    begun = {staging.name, staging.name + LOCK_SUFFIX, LOCK_FILE, *_moved(staging)}
    return [name for name in os.listdir(path) if name not in begun]


def _is_marked(folder: Path) -> bool:
    """Whether this program made a folder and did not finish it."""
    try:
        return stat.S_ISREG(os.lstat(folder / MARK).st_mode)
    except OSError:
        return False


def _moved(staging: Path) -> list[str]:
    """What was about to be moved out of an unfinished folder; the mark of another user is none."""
    try:
        ours = _is_marked(staging) and os.lstat(staging / MARK).st_uid == os.geteuid()
        names = json.loads((staging / MARK).read_bytes()) if ours else []
    except (OSError, ValueError, RecursionError):
        return []
    names = names if isinstance(names, list) else []
    return [name for name in names if isinstance(name, str) and Path(name).name == name]


def _clear(staging: Path, path: Path, shown: str | Path) -> None:
    """Clears away what a kill has left of an earlier writing.

    Raises:
      UsageError: `path` is not empty, or what has the unfinished folder's name is not ours.
    """
    if not is_free(path):
        raise UsageError(f"{shown} is there already and not empty: choose another folder")
    if os.path.lexists(staging):
        ours = staging.is_dir() and not staging.is_symlink()
        if not ours or (os.listdir(staging) and not _is_marked(staging)):
            raise UsageError(
                f"{staging} is in the way, and was not made by this program: remove it, or choose "
                "another folder"
            )
        for name in _moved(staging):
            _remove(path / name)
        _discard(staging)
    if _is_marked(path):
        _discard(path)


def _discard(folder: Path) -> None:
    """Removes a folder that bears our mark, and the mark last: a kill may come any time.

    Threads of a library may still write into it: what they leave keeps the mark, and is cleared
    away by the next one who writes the same.
    """
    mark, aside = folder / MARK, folder.with_name(f"{folder.name}.mark")
    for _ in range(DISCARD_TRIES):
        if not folder.is_dir():
            return
        for name in os.listdir(folder):
            if name != MARK:
                _remove(folder / name)
        with contextlib.suppress(FileNotFoundError):
            mark.replace(aside)
        try:
            folder.rmdir()
        except OSError:
            if aside.exists():
                aside.replace(mark)
            time.sleep(DISCARD_SECONDS)
        else:
            aside.unlink(missing_ok=True)
            return


def _publish(staging: Path, path: Path, last: str) -> None:
    """Gives an unfinished folder its name, once all of it is on the disk."""
    for folder, _, files in os.walk(staging, topdown=False):
        for name in files:
            _flush(Path(folder, name))
        _flush(Path(folder))
    try:
        staging.rename(path)
    except OSError as error:
        if error.errno not in NOT_RENAMED:
            raise
        names = sorted(set(os.listdir(staging)) - {MARK}, key=lambda name: (name == last, name))
        (staging / MARK).write_text(json.dumps(names))
        path.mkdir(exist_ok=True)
        for name in names:
            shutil.move(staging / name, path / name)
        _discard(staging)
    else:
        (path / MARK).unlink()
        _flush(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk; some file systems cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)
