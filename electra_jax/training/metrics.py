"""Metrics of a run directory: `metrics.jsonl`, and trackers beside it (see `trackers`).

A line of `metrics.jsonl` is one object with `step`, `seconds` and metrics by name; where warnings
begin or end, `warnings` has their texts by name, or null. No log is worth a run: what cannot be
written is told once, and the run goes on without it.
"""

import contextlib
import json
import logging
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.system.atomic_files import atomic_path
from electra_jax.system.json_files import short_reason
from electra_jax.training.trackers import TENSORBOARD, open_trackers

log = logging.getLogger(__name__)

BASELINE = "_baseline"  # ends the name of the metric beside another
METRICS_FILE = "metrics.jsonl"
DAMAGED_FILE = "metrics.damaged"  # lines that could not be read, put aside when a run resumes
WARNINGS = "warnings"


class Line(NamedTuple):
    """A line as it stands in the file, and what it says; None if it cannot be read."""

    raw: bytes
    content: dict | None


def read_metrics(workdir: str | Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl` that can be read.

    All have `step` and `seconds`; metrics are finite numbers, or None. A last line that was cut off
    by a kill is passed over; of others that are damaged a warning is logged.
    """
    lines = _read_lines(Path(workdir) / METRICS_FILE)
    if damaged := sum(line.content is None for line in lines):
        log.warning("%s: %d damaged lines are left out", Path(workdir) / METRICS_FILE, damaged)
    return [line.content for line in lines if line.content is not None]


def _read_lines(path: Path) -> list[Line]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is not a regular file")
        *whole, rest = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("%s cannot be read: %s", path, short_reason(error))
        return []
    lines = [Line(raw, _parse(raw)) for raw in whole if raw.strip()]
    last = Line(rest, _parse(rest))
    return lines if last.content is None else [*lines, last]


def _parse(raw: bytes) -> dict | None:
    """What a line says, less what is of the wrong kind; None if it is not a line of metrics."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or type(found.get("step")) is not int or found["step"] < 0:
        return None
    warnings = found.pop(WARNINGS, None)
    line: dict[str, Any] = {
        name: _finite(x) for name, x in found.items() if x is None or _is_number(x)
    }
    line |= {"step": found["step"], "seconds": line.get("seconds") or 0.0}
    if isinstance(warnings, dict):
        told = {name: x for name, x in warnings.items() if x is None or isinstance(x, str)}
        line |= {WARNINGS: told} if told else {}
    return line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float | None) -> float | None:
    try:
        return value if value is not None and math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


class MetricsWriter:
    """Appends to a run's metrics, from `step` on.

    Lines past `step` are cut off first: the resumed run will write them again.
    Only process 0 should make one. Use as a context manager.

    Args:
      workdir: the run directory.
      step: steps done.
      trackers: where else the lines go, names with commas between them.
      settings: of the run, for trackers that show them, by name.
    """

    def __init__(
        self,
        workdir: str | Path,
        step: int,
        trackers: str = TENSORBOARD,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._lines = LineFile(Path(workdir), step)
        self._trackers = open_trackers(trackers, Path(workdir), step, settings or {})

    def write(
        self,
        step: int,
        seconds: float,
        values: Mapping[str, float],
        warnings: Mapping[str, str | None] | None = None,
    ) -> None:
        """Adds one line. Values that are not finite are written as null.

        Args:
          step: steps done.
          seconds: of the run.
          values: metrics by name.
          warnings: those that begin, and None for those that end, by name.
        """
        finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        line: dict[str, object] = {"step": step, "seconds": round(seconds, 3), **finite}
        if warnings:
            line[WARNINGS] = {**warnings}
        self._lines.append(json.dumps(line).encode() + b"\n")
        for tracker in self._trackers:
            tracker.append(step, finite, warnings or {})

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._lines.close()
        for tracker in self._trackers:
            tracker.close()


class LineFile:
    """`metrics.jsonl`. Lines that cannot be written wait for the next one, as on a full disk."""

    def __init__(self, workdir: Path, step: int) -> None:
        self._path = workdir / METRICS_FILE
        lines = _read_lines(self._path)
        damaged = b"".join(line.raw + b"\n" for line in lines if line.content is None)
        self._kept: bytes | None = b"".join(
            line.raw + b"\n" for line in lines if line.content and line.content["step"] <= step
        )
        self._waiting: list[bytes] = []
        self._descriptor: int | None = None
        self._size = 0  # of what is written whole
        self._failed = False
        if damaged:
            self._put_aside(damaged)
        self._write()

    def append(self, line: bytes) -> None:
        self._waiting.append(line)
        self._write()

    def _put_aside(self, damaged: bytes) -> None:
        aside = self._path.with_name(DAMAGED_FILE)
        try:
            with aside.open("ab") as file:
                file.write(damaged)
        except OSError as error:
            log.warning("%s cannot be written: %s", aside, short_reason(error))
            return
        log.warning(
            "%s: %d damaged lines are left out; they lie in %s now",
            self._path, damaged.count(b"\n"), aside,
        )  # fmt: skip

    def _write(self) -> None:
        """Writes what waits, all of it or nothing."""
        content = b"".join(self._waiting)
        try:
            descriptor = self._open()
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.fsync(descriptor)  # a mounted bucket has nothing before that
        except OSError as error:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
            if not self._failed:
                log.warning(
                    "%s cannot be written (%s): the run goes on, and its lines wait in memory",
                    self._path, short_reason(error),
                )  # fmt: skip
            self._failed = True
            return
        if self._failed:
            log.info("%s is written again, with all lines", self._path)
        self._size += len(content)
        self._waiting, self._failed = [], False

    def _open(self) -> int:
        """The file, cut to the lines that are kept."""
        if self._kept is not None:
            with atomic_path(self._path) as partial:
                partial.write_bytes(self._kept)
            self._size, self._kept = len(self._kept), None
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, 0o666)
        return self._descriptor

    def close(self) -> None:
        if self._waiting:
            self._write()
        if self._waiting:
            log.warning("%s lacks the last %d lines", self._path, len(self._waiting))
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def held_out_metrics(workdir: str | Path, step: int | None = None) -> dict[str, float]:
    """The held-out metrics that a run has logged last, or at a step; empty if there are none."""
    for line in reversed(read_metrics(workdir)):
        found = {
            name.removeprefix("eval/"): value
            for name, value in line.items()
            if name.startswith("eval/") and value is not None  # one that was not finite is null
        }
        if found and step in (None, line["step"]):
            return found
    return {}
