"""The record beside the arrays of a checkpoint: what its caller wants kept, and digests.

It is JSON with a checksum. Each array's digest (see `digests`) is in it, and the metrics that say
which checkpoint is the best. Those of earlier versions have neither digests nor a checksum; their
metrics lie in a file of their own.
"""

import dataclasses
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from electra_jax.errors import UsageError
from electra_jax.system.json_files import CHECKSUM, read_object, reading, seal, unseal
from electra_jax.training.digests import inspect

log = logging.getLogger(__name__)

# In the folder of a step, as Orbax's JsonSave and its manager have it.
RECORD_FILE, METRICS_FILE = "record/metadata", "metrics/metrics"
DIGESTS, METRICS = "digests", "metrics"
ELAPSED = "elapsed"  # seconds of the run, in all records


class NotFinite(Exception):
    """An array of a state, of this path, has entries that are not numbers."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A record that was read.

    Attributes:
      content: what its caller wanted kept.
      digests: by path of an array; None in checkpoints of earlier versions.
      metrics: by name; empty if there was no evaluation.
    """

    content: dict[str, Any]
    digests: dict[str, str] | None
    metrics: dict[str, float]


def make_record(
    content: Mapping[str, Any],
    parts: Mapping[str, Any],
    metrics: Mapping[str, float],
    unchecked: bool = False,
) -> dict[str, Any]:
    """The record of a checkpoint, as JSON is to have it.

    Args:
      content: what the caller wants kept.
      parts: the arrays of the checkpoint by part.
      metrics: those that say which is the best.
      unchecked: whether what is learnt may be other than numbers.

    Raises:
      NotFinite: a parameter, or the optimizer's state, has entries that are not numbers.
    """
    found = inspect(parts)
    for name, inspection in found.items():
        if not (unchecked or inspection.finite) and is_learnt(name):
            raise NotFinite(name)
    digests = {name: inspection.digest for name, inspection in found.items()}
    return seal({**content, DIGESTS: digests, METRICS: {**metrics}})


def is_learnt(name: str) -> bool:
    """Whether an array is a parameter or of the optimizer's state, and not a sum for the log."""
    return not name.startswith(("rest/metric_sums/", "norms/"))


def read_record(folder: Path) -> Record:
    """The record of the checkpoint in a folder.

    Raises:
      UsageError: it is missing or damaged.
    """
    file = folder / RECORD_FILE
    sealed = read_object(file)
    with reading(file):
        if CHECKSUM not in sealed and DIGESTS in sealed:
            raise UsageError("its checksum is missing")
        content = unseal(sealed, sealed)
        if DIGESTS not in content:
            if not math.isfinite(content[ELAPSED]):
                raise UsageError(f"{ELAPSED} is {content[ELAPSED]}")
            return Record(content, None, _read_metrics(folder))
        return Record(content, content.pop(DIGESTS), content.pop(METRICS))


def _read_metrics(folder: Path) -> dict[str, float]:
    """The metrics of a checkpoint of an earlier version; none, with a warning, if damaged."""
    file = folder / METRICS_FILE
    if not file.exists():
        return {}
    try:
        content = read_object(file)
        with reading(file):
            return {name: float(value) for name, value in content.items()}
    except UsageError as error:
        log.warning("%s: this checkpoint is not taken for the best", error)
        return {}


def verify(record: Record, parts: Mapping[str, Any], unchecked: bool = False) -> None:
    """Checks that arrays are those that were saved, and that what is learnt are numbers.

    Args:
      record: of the checkpoint.
      parts: the arrays that were restored, by part.
      unchecked: whether what is learnt may be other than numbers.

    Raises:
      UsageError: names the first that is not.
    """
    found = inspect(parts)
    if record.digests is None:
        log.info("this checkpoint has no digests, as it was saved by an earlier version")
    else:
        expected = {name: d for name, d in record.digests.items() if name.split("/")[0] in parts}
        if lost := _first(set(expected) ^ set(found)):
            raise UsageError(f"array {lost} is not in both the checkpoint and its record")
        wrong = (name for name, inspection in found.items() if inspection.digest != expected[name])
        if name := _first(wrong):
            raise UsageError(f"array {name} is not what was saved: the files are damaged")
    bad = (name for name, inspection in found.items() if not inspection.finite)
    if not unchecked and (name := _first(filter(is_learnt, bad))):
        raise UsageError(f"array {name} has entries that are not numbers")


def _first(names: Iterable[str]) -> str:
    return min(names, default="")


def rank(metrics: Mapping[str, float], metric: str, maximise: bool) -> float:
    """How bad a checkpoint is; infinite if that is not known."""
    value = metrics.get(metric, math.nan)
    return math.inf if math.isnan(value) else -value if maximise else value
