"""Errors that end in one line, and the range checks of config fields, which raise one."""

import dataclasses
import difflib
import math
import numbers
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

PREEMPTED = 75  # nothing is lost: launchers rerun the command, at will
LONGEST = 2000  # characters of a message; what is in it may come from a file
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MOST = 2**31 - 1  # of whole numbers in a config: on devices they have 32 bits


class ElectraError(Exception):
    """An error that is not a fault of the program.

    The message is one line: what is wrong, where, and what to do about it. The
    command line prints it alone and exits with `status`; a traceback would be a bug.
    """

    status = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(str(message)))


class UsageError(ElectraError):
    """Wrong input."""

    status = 2  # starting again would not help


class ProcessMissing(ElectraError):
    """Another process of the run is not found, or does not report, in the time it was given.

    On a preempted slice it may be on its way: nothing is lost, and the command can be rerun.
    """

    status = PREEMPTED


def one_line(message: str) -> str:
    """A message without line breaks and what else does something to a terminal, shortened.

    Names in it are those of files, columns, labels: whoever wrote them may have chosen anything.
    """
    text = _UNSEEN.sub(lambda found: " " if found[0].isspace() else ascii(found[0])[1:-1], message)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 100]} … {text[-90:]}"


class Stopped(BaseException):
    """A signal stopped a run; rerunning the command resumes it.

    Not an Exception, as KeyboardInterrupt is none: where anything that fails is told as something
    else, a signal is not.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal = signal.Signals(signal_number)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint at the closest of the known names; "" if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


Check = Callable[[Any], str]  # a value → what is wrong, to stand behind the field's name; or ""


def checked(default: Any, check: Check) -> Any:
    """A field of a config section with its default and its check, for `check_fields`."""
    return dataclasses.field(default=default, metadata={"check": check})


def at_least(least: float) -> Check:
    return lambda x: "" if x >= least else f" must be at least {least}, not {x}"


def above(bound: float) -> Check:
    return lambda x: "" if x > bound else f" must be above {bound}, not {x}"


def within(interval: str) -> Check:
    """Numbers of an interval such as "[0, 1)", in which 1 does not lie."""
    low, high = map(float, interval[1:-1].split(","))

    def check(x: float) -> str:
        inside = low < x < high or (x == low and "[" in interval) or (x == high and "]" in interval)
        return "" if inside else f" must be in {interval}, not {x}"

    return check


def one_of(known: Sequence[str] | Callable[[], Sequence[str]]) -> Check:
    """Known names, or a function that returns them, to be called at the first check."""

    def check(x: str) -> str:
        names = known() if callable(known) else known
        return "" if x in names else f"={x!r} is unknown; use {', '.join(filter(None, names))}"

    return check


def regular_expression(x: str) -> str:
    try:
        re.compile(x)
    except (re.error, OverflowError, RecursionError) as error:
        return f"={x!r} is not a regular expression: {error}"
    return ""


def check_fields(section: str, config: Any) -> None:
    """Checks all fields of a config section: their types, their size, and what they declare.

    Args:
      section: what users call it, such as "train".
      config: a dataclass, every field of which has a default.

    Raises:
      UsageError: names the first field that is wrong.
    """
    for field in dataclasses.fields(config):
        name = f"{section}.{field.name.removesuffix('_')}"
        value = getattr(config, field.name)
        kind = type(field.default)
        accepted: Any = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"{name} must be of type {kind.__name__}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{name} must be a finite number, not {value}")
        if kind is int and value > MOST:
            raise UsageError(f"{name} must be at most {MOST}, not {value}")
        if "check" in field.metadata and (wrong := field.metadata["check"](value)):
            raise UsageError(name + wrong)
