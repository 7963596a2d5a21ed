"""Runs commands as processes that start at once, and injects faults into them.

The process that imports this has imported all that the commands need; each command runs in a
fork of it, in a session of its own, from `cli.main` to the end of the interpreter.
"""

import atexit
import contextlib
import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LIMIT = 180.0  # seconds, after which a command hangs
GRACE = 5.0  # seconds that a command and its children have to end after a signal
POLL = 0.005
INTERRUPTED = 130  # as shells count SIGINT


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      status: its exit status; minus the signal that ended it.
      output: of stdout and stderr.
      seconds: it ran.
      after_signal: seconds from the signal to its end; 0 without one.
      hung: it was ended by the time limit.
      orphans: processes of its session that were still there GRACE seconds later.
    """

    status: int
    output: str
    seconds: float
    after_signal: float
    hung: bool
    orphans: tuple[int, ...]


class Kill(NamedTuple):
    """A signal, and when it is sent."""

    signal: signal.Signals
    seconds: float


def run(
    arguments: Sequence[str],
    *,
    kill: Kill | None = None,
    limit: float = LIMIT,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Runs `electra-jax ARGUMENTS`.

    Args:
      arguments: of the command.
      kill: a signal to its process alone.
      limit: in seconds.
      before: called in the process before the command, to inject a fault.
    """
    return start(arguments, before).wait(kill, limit)


def start(arguments: Sequence[str], before: Callable[[], None] = lambda: None) -> "Process":
    """Starts `electra-jax ARGUMENTS`."""
    from electra_jax.cli import main

    return Process(lambda: main(list(arguments)), before)


def run_function(
    function: Callable[[], int | None],
    *,
    kill: Kill | None = None,
    limit: float = LIMIT,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Runs a function in a fork; what it returns is the exit status."""
    return Process(function, before).wait(kill, limit)


class Process:
    """A function in a fork of this process."""

    def __init__(
        self, function: Callable[[], int | None], before: Callable[[], None] = lambda: None
    ) -> None:
        self._start = time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read when it has ended
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks: its threads do not run yet
            self.pid = os.fork()
        if not self.pid:
            _child(function, before, self._output.fileno())

    def wait(self, kill: Kill | None = None, limit: float = LIMIT) -> Ended:
        """How it ended, of itself or otherwise."""
        signalled, status = 0.0, None
        while status is None:
            now = time.monotonic()
            if kill and not signalled and now - self._start >= kill.seconds:
                os.kill(self.pid, kill.signal)
                signalled = now
            if now - self._start > limit:
                break
            status = _wait(self.pid)
        end = time.monotonic()
        hung = status is None
        if hung:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        orphans = _orphans(self.pid)
        with self._output as output:
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        return Ended(
            -signal.SIGKILL if status is None else status, text, end - self._start,
            end - signalled if signalled else 0.0, hung, tuple(orphans),
        )  # fmt: skip


def _child(function: Callable[[], int | None], before: Callable[[], None], output: int) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            before()
            status = function() or 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        # As the interpreter ends: threads first, which a failed save may have left.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        import sys

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    except KeyboardInterrupt:  # before the command has begun, or when it is over
        status = INTERRUPTED
    finally:
        os._exit(status)


def _wait(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        return os.waitstatus_to_exitcode(status)
    time.sleep(POLL)
    return None


def _orphans(session: int) -> list[int]:
    """Processes of a session that do not end by themselves; they are ended."""
    deadline = time.monotonic() + GRACE
    while (left := members(session)) and time.monotonic() < deadline:
        time.sleep(POLL)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def members(session: int) -> list[int]:
    """The processes of a session that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # pid (name) state ppid pgrp session …; the name may hold spaces.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found
