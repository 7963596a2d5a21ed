"""How a command ends on a signal: at once, with its children, and leaving nothing half-done.

Python runs signal handlers in the main thread, between two of its instructions. Where that thread
is in native code (a compilation, a trainer of tokenizers) no handler runs until it returns. So a
thread beside it learns of signals, too, and ends the process if the main thread has not within
GRACE_SECONDS, unless a run is about to save itself.
"""

import contextlib
import math
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from electra_jax.errors import PREEMPTED, Stopped

GRACE_SECONDS = 2.5
POLL_SECONDS = 0.2
CLEANING_SECONDS = 1.0
INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as shells know them
RESUME = "stopped; rerun the command to resume from the last checkpoint"


class Terminated(KeyboardInterrupt):
    """SIGTERM, where no run is there to be resumed."""


class _State:
    """What the watching thread must know of the main one."""

    resumable = False  # whether SIGTERM is how a launcher preempts a run
    ends_itself = 0  # how many blocks of `ends_itself` are entered
    waits = False  # whether this process ends together with others
    lost = 0  # interrupts whose exceptions could not be raised
    cleanups: list[Callable[[], None]] = []


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Has SIGINT and SIGTERM end this process within seconds, whatever its main thread is at.

    SIGTERM raises `Terminated` there, as SIGINT raises KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    if previous is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, _terminate)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(told,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, previous)
        with contextlib.suppress(BlockingIOError):
            os.write(tell, b"\0")
        thread.join(GRACE_SECONDS)
        os.close(tell)
        os.close(told)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """SIGTERM raises `Stopped` in the block: the command can be rerun, and nothing is lost."""
    before, _State.resumable = _State.resumable, True
    try:
        yield
    finally:
        _State.resumable = before


@contextlib.contextmanager
def ends_itself() -> Iterator[None]:
    """A block that heeds the first signal by itself, and is not ended from outside by it."""
    _State.ends_itself += 1
    try:
        yield
    finally:
        _State.ends_itself -= 1


@contextlib.contextmanager
def cleaned_up(function: Callable[[], None]) -> Iterator[None]:
    """Calls a function if the process is ended from outside the main thread in this block."""
    _State.cleanups.append(function)
    try:
        yield
    finally:
        _State.cleanups.remove(function)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Lets signals wait for the end of a block, which is short and must not be done by half."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in heard:
            signal.raise_signal(each)


def redeliver(error: BaseException | None) -> None:
    """Has a signal come again whose exception was raised where nothing can be raised.

    Handlers run wherever the main thread is, which may be in a callback of the garbage collector.
    """
    if isinstance(error, Stopped):
        number: int = error.signal
    elif isinstance(error, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
    else:
        return
    _State.lost += number == signal.SIGINT
    again = threading.Timer(POLL_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def wait_for_others() -> None:
    """From here on other processes of a run need this one until all have reached its end."""
    _State.waits = True


def leave(status: int) -> None:
    """To be called when a command is over, right before the process ends with its status.

    Signals then end it without a word, and where the command has failed, it ends after
    GRACE_SECONDS even if threads that libraries have left would keep Python from ending, unless
    there are others to end with.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not status or _State.waits:
        return

    def end() -> None:
        time.sleep(GRACE_SECONDS)
        os._exit(status)

    threading.Thread(target=end, name="end", daemon=True).start()


def follow_parent() -> None:
    """Has a process of `multiprocessing` end when its parent does, killed perhaps.

    Ctrl-C in a terminal reaches it, too, and is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Stopped(number, RESUME) if _State.resumable else Terminated


def _watch(told: int) -> None:
    """Waits for signals, and ends the process if one is not heeded in time."""
    deadline, number, interrupts = math.inf, 0, 0
    while True:
        if select.select([told], [], [], None if math.isinf(deadline) else POLL_SECONDS)[0]:
            numbers = os.read(told, 64)
            if 0 in numbers:
                return
            heard = [n for n in numbers if n in (signal.SIGINT, signal.SIGTERM)]
            if heard:
                number = heard[-1]
                interrupts += heard.count(signal.SIGINT)
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if _State.ends_itself and interrupts - _State.lost < 2 and not math.isinf(deadline):
            deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() >= deadline:
            _end(number)


def _end(number: int) -> None:
    """Ends the process, whose main thread does not heed a signal."""
    cleaner = threading.Thread(target=_clean, daemon=True)
    cleaner.start()
    cleaner.join(CLEANING_SECONDS)
    if number == signal.SIGINT:
        status, text = INTERRUPTED, "interrupted"
    elif _State.resumable:
        status, text = PREEMPTED, RESUME
    else:
        status, text = TERMINATED, "terminated"
    with contextlib.suppress(OSError):
        os.write(2, f"electra-jax: {text}\n".encode())
    os._exit(status)


def _clean() -> None:
    for function in reversed(_State.cleanups):
        with contextlib.suppress(Exception):
            function()
