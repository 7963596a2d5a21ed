"""One writer: a directory that a process writes to is locked for all others.

The lock is a file, which the kernel lets only one process hold (`fcntl.lockf`: on NFS, too, and
not inherited by children), and which it gives free when that process ends, however it does. The
file says who holds it. File systems without locks, and those whose locks do not reach other
hosts, are covered by what it says: the holder touches it every few seconds, and another host
that sees no touch for a while takes it. Nothing is ever to be removed by hand.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import shlex
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError
from electra_jax.system.ending import cleaned_up

LOCK_FILE = ".lock"  # in a directory that is written to
HEARTBEAT_SECONDS = 3.0
WATCH_SECONDS = 10.0  # without a touch, after which the holder on another host is taken for dead
SETTLE_SECONDS = 0.3  # for two that take a lock at once, where the file system has none
LONGEST_COMMAND = 120  # characters of it that are shown
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

_held: set[str] = set()  # by this process, to which the kernel would grant them again


@contextlib.contextmanager
def one_writer(folder: str | Path) -> Iterator[None]:
    """Holds the lock of a folder, which is made if need be, and removed again if it stays empty.

    Raises:
      UsageError: another process writes to it, or it cannot be written.
    """
    folder = Path(folder)
    there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        with hold(folder / LOCK_FILE, folder):
            yield
    finally:
        if not there:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def hold(file: Path, what: Path) -> Iterator[None]:
    """Holds a lock file, which is removed at the end.

    Args:
      file: its folder is there.
      what: the file or folder that it stands for.

    Raises:
      UsageError: another process holds it, or it cannot be written.
    """
    name = os.path.realpath(file)
    if name in _held:
        raise UsageError(f"{what} is being written by this process already")
    try:
        descriptor = _take(file, what)
    except OSError as error:
        raise UsageError(f"{what} cannot be written: {error.strerror}") from error
    _held.add(name)
    done = threading.Event()
    threading.Thread(target=_beat, args=(descriptor, done), name="lock", daemon=True).start()
    pid = os.getpid()

    def release() -> None:
        # Removed while it is held: whoever opened it before finds that it is not the file any
        # more. A forked child has not got the lock.
        with contextlib.suppress(OSError):
            if os.getpid() == pid and _is_at(descriptor, file):
                file.unlink()

    try:
        with cleaned_up(release):
            yield
    finally:
        done.set()
        release()
        _held.discard(name)
        os.close(descriptor)


def _take(file: Path, what: Path) -> int:
    """The descriptor of a lock file that is held now."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{file} is in the way: it is not a file of this program")
            locked = _lock(descriptor, what)
            if _is_at(descriptor, file):
                holder = _read(descriptor)
                if holder and _is_alive(holder, file, locked):
                    raise UsageError(_in_use(what, holder))
                me = _describe()
                _write(descriptor, me)
                if locked or _stays(file, me):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed, or taken, meanwhile


def _lock(descriptor: int, what: Path) -> bool:
    """Locks a file; False where the file system cannot.

    Raises:
      UsageError: another process has locked it.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UsageError(_in_use(what, _read(descriptor))) from None
        if error.errno in NO_LOCKS:
            return False
        raise


def _is_at(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except OSError:
        return False


def _is_alive(holder: dict[str, Any], file: Path, locked: bool) -> bool:
    """Whether the process that a lock file names still writes."""
    if holder.get("machine") == _machine():
        # The kernel has told already, where it knows of locks.
        started = _started(holder.get("pid"))
        return not locked and started is not None and started == holder.get("started")
    before, deadline = _touched(file), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if _touched(file) != before:
            return True
    return False


def _touched(file: Path) -> Any:
    try:
        status = file.stat()
        return status.st_mtime_ns, status.st_ino
    except OSError:
        return None


def _stays(file: Path, me: dict[str, Any]) -> bool:
    """Whether a lock file still says what was written, after others had time to do the same."""
    time.sleep(SETTLE_SECONDS)
    try:
        return json.loads(file.read_bytes()) == me
    except (OSError, ValueError):
        return False


def _beat(descriptor: int, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _read(descriptor: int) -> dict[str, Any]:
    """What a lock file says; nothing if it was just made, or is not to be read."""
    try:
        holder = json.loads(os.pread(descriptor, 1 << 16, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _write(descriptor: int, holder: dict[str, Any]) -> None:
    # On a full disk the lock is held all the same; others cannot read by whom.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _describe() -> dict[str, Any]:
    """This process, for those that want the same lock."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _in_use(what: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{what} is being written by another process: wait for it to end"
    command = str(holder.get("command", ""))
    if len(command) > LONGEST_COMMAND:
        command = f"{command[:LONGEST_COMMAND]}…"
    return (
        f"{what} is being written by another process ({holder.get('pid')} on "
        f"{holder.get('host')}, since {holder.get('since')}: {command}): wait for it to end, or "
        "choose another folder"
    )


def _machine() -> str:
    """This host since it was started: another boot is another machine, whose processes are gone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


def _started(pid: Any) -> str | None:
    """When a process of this machine started, by its clock; None if there is none of that number.

    Numbers of processes come again.
    """
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if is_running(pid) else None  # a system that does not tell


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
