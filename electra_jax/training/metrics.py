"""Metrics of a run directory: `metrics.jsonl` and TensorBoard.

A line of `metrics.jsonl` is one object with `step`, `seconds` and metrics by name; where warnings
begin or end, `warnings` has their texts by name, or null.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from electra_jax.atomic_files import write_text

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: str | Path) -> list[dict]:
    """The lines of a run's `metrics.jsonl`; a last line cut off by a kill is passed over."""
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class MetricsWriter:
    """Appends to a run's metrics, from `step` on.

    Lines past `step` are cut off first: the resumed run will write them again.
    Only process 0 should make one. Use as a context manager.
    """

    def __init__(self, workdir: str | Path, step: int) -> None:
        self.path = Path(workdir) / METRICS_FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a")
        self._tensorboard = SummaryWriter(
            str(Path(workdir) / "tensorboard"), purge_step=step + 1, write_to_disk=True
        )

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
            line["warnings"] = {**warnings}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # a mounted bucket has nothing before that
        for name, value in finite.items():
            if value is not None:
                self._tensorboard.add_scalar(name, value, step)
        for name, text in (warnings or {}).items():
            self._tensorboard.add_text(f"warnings/{name}", text or "over", step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._tensorboard.close()
