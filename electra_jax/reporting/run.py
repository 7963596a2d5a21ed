"""A run as the page knows it: what its directory holds, read on the guard."""

import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from electra_jax.config import FinetuneConfig, PretrainConfig, build_objective
from electra_jax.data.sampler import parse_stores
from electra_jax.data.token_store import TokenStore
from electra_jax.errors import UsageError
from electra_jax.models.electra import count_params, init_params
from electra_jax.objectives.objective import Objective
from electra_jax.run_directory import CONFIG_FILE, PAIRS_FILE, RESULTS_FILE, read_any_config
from electra_jax.system.json_files import DAMAGE, read_object, reading
from electra_jax.training.metrics import METRICS_FILE, read_metrics

LAST_STEP = 2**53  # the largest whole number that a browser counts to


class Run:
    """What a run directory holds.

    Attributes:
      name: of the directory.
      lines: of its metrics, by rising step; at least one.
      fields: of its config file; empty if there is none.
      config: the same, typed; None if it cannot be (as where a plugin is missing).
      results: those of a fine-tuning run that has ended; else empty.
      pairs: what `evaluate --minimal-pairs` found last; else empty.
    """

    def __init__(
        self,
        name: str,
        lines: Sequence[Mapping[str, Any]],
        fields: Mapping[str, Any],
        config: PretrainConfig | FinetuneConfig | None = None,
        results: Mapping[str, Any] | None = None,
        pairs: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.fields, self.config = name, fields, config
        self.lines = sorted(lines, key=lambda line: line["step"])
        self.results, self.pairs = results or {}, pairs or {}

    @property
    def steps(self) -> int:
        return self.lines[-1]["step"]

    @property
    def seconds(self) -> float:
        return max(line["seconds"] for line in self.lines)

    @property
    def is_finetuning(self) -> bool:
        return isinstance(self.config, FinetuneConfig) or "task" in self.fields

    @property
    def tokens_per_step(self) -> int | None:
        """Positions of a step's rows; None for a run whose rows have no fixed length."""
        if not isinstance(self.config, PretrainConfig):
            return None
        return self.config.train.batch_size * self.config.data.length

    @functools.cached_property
    def objective(self) -> Objective | None:
        """The objective of a pretraining run, to ask for its diagnosis."""
        with contextlib.suppress(UsageError, *DAMAGE):
            if isinstance(self.config, PretrainConfig):
                return build_objective(self.config, None)
        return None

    @functools.cached_property
    def parameters(self) -> dict[str, int]:
        """How many parameters each network of a pretraining run has; empty if that is unknown."""
        with contextlib.suppress(UsageError, *DAMAGE):
            if isinstance(self.config, PretrainConfig) and self.config.model.vocab_size:
                electra = self.config.electra
                shapes = jax.eval_shape(lambda key: init_params(electra, key), jax.random.key(0))
                return {name: count_params(part) for name, part in shapes.items()}
        return {}

    @functools.cached_property
    def store_tokens(self) -> int | None:
        """Tokens of the training text; None if a store is not where the config says."""
        with contextlib.suppress(UsageError, *DAMAGE):
            if isinstance(self.config, PretrainConfig) and self.config.data.store:
                stores = parse_stores(self.config.data.store)
                opened = [TokenStore.open(path) for path, _ in stores]
                return sum(store.manifest["splits"]["train"]["tokens"] for store in opened)
        return None

    def last(self, kind: str) -> dict[str, float]:
        """The value that each metric of a kind, "train" or "eval", had last, by name."""
        found: dict[str, float] = {}
        for line in self.lines:
            for name, value in line.items():
                if name.startswith(f"{kind}/") and value is not None:
                    found[name.partition("/")[2]] = value
        return found


def read_run(workdir: str | Path) -> Run:
    """Reads a run directory.

    Raises:
      UsageError: the run has logged nothing, or a file in it is damaged.
    """
    workdir = Path(workdir)
    lines = [line for line in read_metrics(workdir) if line["step"] <= LAST_STEP]
    if not lines:
        raise UsageError(f"nothing to report: {workdir / METRICS_FILE} is missing or empty")
    fields = read_object(workdir / CONFIG_FILE) if (workdir / CONFIG_FILE).is_file() else {}
    config = None
    with contextlib.suppress(UsageError):
        config = read_any_config(workdir) if fields else None
    name = os.path.basename(os.path.realpath(workdir))
    results, pairs = _read_results(workdir / RESULTS_FILE), _read_pairs(workdir / PAIRS_FILE)
    return Run(name, lines, fields, config, results, pairs)


def _read_results(file: Path) -> dict[str, Any]:
    """What RESULTS_FILE says, less what is not a finite number."""
    if not file.is_file():
        return {}
    found = read_object(file)
    with reading(file):
        kept: dict[str, Any] = {
            "metric": str(found["metric"]), "step": int(found["step"]), "rows": {}
        }  # fmt: skip
        for part, values in found.items():
            if isinstance(values, dict):
                kept[part] = {
                    name: value
                    for name, value in values.items()
                    if isinstance(value, int | float) and math.isfinite(value)
                }
        kept["metrics"][kept["metric"]]
        return kept


def _read_pairs(file: Path) -> dict[str, Any]:
    """What PAIRS_FILE says (see `inference.scoring.PairAccuracy`), by phenomenon and paradigm."""
    if not file.is_file():
        return {}
    found = read_object(file)
    with reading(file):
        paradigms = sorted(found["paradigms"].items(), key=lambda item: item[1]["phenomenon"])
        numbers = ("minimal_pairs", "minimal_pairs_baseline", "step", "pairs")
        return {
            "file": str(found["file"]),
            **{name: found[name] + 0 for name in numbers},
            "phenomena": {name: one["accuracy"] + 0.0 for name, one in found["phenomena"].items()},
            "paradigms": {name: one["accuracy"] + 0.0 for name, one in paradigms},
        }
