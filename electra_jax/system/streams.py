"""Standard streams that are closed, full, or whose reader has gone."""

import contextlib
import io
import logging
import os
import sys
import threading
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from electra_jax.errors import UsageError
from electra_jax.system.ending import redeliver
from electra_jax.system.failures import Failure

log = logging.getLogger(__name__)

LONGEST = 300  # characters of what a library logs


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Nothing that is told beside the work can end it in this block.

    Closed streams lead to nowhere: else the next file that is opened would become standard output.
    What cannot be written to standard error is dropped.
    """
    _open_closed()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = Output(sys.stdout) if sys.stdout else Nowhere()  # type: ignore[assignment]
    sys.stderr = Tolerant(sys.stderr or Nowhere())  # type: ignore[assignment]
    if hasattr(sys.stdout, "reconfigure"):  # names of files may hold any bytes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class Nowhere(io.StringIO):
    """What stands for a stream that is closed."""

    def write(self, text: str, /) -> int:
        return len(text)


class Tolerant:
    """A stream that may fail: what it does not take is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """Standard output, whose errors name it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from error


class Brief(logging.Formatter):
    """A line for each record: libraries log whole tracebacks of errors that they raise, too."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.name.startswith("electra_jax") else one_line(text)[:LONGEST]


class Dated(logging.Formatter):
    """A line for each record, with its time."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return ""


def log_to_terminal(level: int) -> None:
    """Has what is logged, and errors of threads, appear on standard error, a line each.

    It stays so until the process ends: what libraries have begun may still fail then.

    Args:
      level: the least of what this package logs; of libraries, warnings are shown.
    """
    threading.excepthook = _tell_error_of_thread
    sys.excepthook = _tell_error
    sys.unraisablehook = _tell_unraisable
    logging.raiseExceptions = False
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(Brief())
    logging.getLogger("electra_jax").setLevel(level)


@contextlib.contextmanager
def logging_to_file(path: str) -> Iterator[None]:
    """Appends what is logged to a file, too, each line with its time; "" is no file.

    Raises:
      UsageError: it cannot be written.
    """
    if not path:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"--log-file {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(Dated("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _open_closed() -> None:
    """Has descriptors 0 to 2 that are closed lead to nowhere."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)


def tell(failure: Failure, stream: TextIO) -> None:
    """Tells how a command failed, in one line."""
    prefix = "" if stream is sys.stdout else "electra-jax: "
    with contextlib.suppress(OSError, ValueError):
        print(prefix + one_line(failure.line), file=stream)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        drop_output()


def drop_output() -> None:
    """Drops what standard output still holds: it cannot be written, now or when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def one_line(text: str) -> str:
    """A text as one line: names of files may hold line ends, and other control characters."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in text.strip()
    )


def _tell_unraisable(unraisable: Any) -> None:
    redeliver(unraisable.exc_value)
    log.debug("in the background: %r", unraisable.exc_value)


def _tell_error_of_thread(error: threading.ExceptHookArgs) -> None:
    if error.exc_type is not SystemExit:
        reason = str(error.exc_value or error.exc_type.__name__).splitlines()[:1]
        log.warning("in the background: %s", one_line("".join(reason)))


def _tell_error(kind: type, error: BaseException, traceback: Any) -> None:
    """A traceback of this program's own faults alone: libraries call this from their threads."""
    if threading.current_thread() is threading.main_thread():
        sys.__excepthook__(kind, error, traceback)
    else:
        log.debug("in the background: %r", error)
