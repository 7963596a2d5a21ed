"""The files of a run directory, by name, and its config.

config.json  checkpoints/  metrics.jsonl  tensorboard/  tokenizer/  report/  profile/
minimal_pairs.json  trackers.json  metrics.damaged (lines that could not be read)
.lock (of the process that writes, while it does)
of fine-tuning also: task.json  data.json  results.json  predictions/
of several fine-tuning runs: runs.json  results.md, and a run directory for each
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from electra_jax.config import (
    FinetuneConfig,
    PretrainConfig,
    config_fields,
    finetune_config,
    first_difference,
    pretrain_config,
)
from electra_jax.errors import UsageError
from electra_jax.system.atomic_files import write_json
from electra_jax.system.json_files import read_object, reading

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
CONFIG_VERSION = 1
TOKENIZER = "tokenizer"
REPORT = "report"
TASK_FILE = "task.json"  # what of a fine-tuned model its config does not say
DATA_FILE = "data.json"  # sizes and hashes of the files that a fine-tuning run learns from
RESULTS_FILE = "results.json"
BASELINE = "trivial"  # in it, the key of the baseline's metrics
PREDICTIONS = "predictions"
RUNS_FILE = "runs.json"  # of several runs; each has its own RESULTS_FILE in its folder
TABLE_FILE = "results.md"
PAIRS_FILE = "minimal_pairs.json"  # what `evaluate --minimal-pairs` found last

IMPORTED = ""  # in place of a token store, in the record of an imported model
# Fields that the shape of a training state depends on.
STATE_FIELDS = (
    "model.", "generator.", "objective.name", "optimizer.name", "optimizer.separate",
    "optimizer.frozen", "optimizer.bias_correction", "train.average",
)  # fmt: skip
# Fields that do not change what a run computes.
FREE_FIELDS = (
    "mesh.",
    "processes.",
    "eval.",
    "checkpoint.",
    "train.log_every",
    "train.profile",
    "train.trackers",
    "train.skip_non_finite",
    "data.pipeline",  # whose batches are the same
    "data.store",  # moved, perhaps: what it holds is compared
    "model.attention",
)
FINETUNING_FREE_FIELDS = (
    "mesh.",
    "processes.",
    "checkpoint.",
    "train.log_every",
    "train.profile",
    "train.trackers",
    "train.skip_non_finite",
    "train.eval_batch_size",
    "task.test",
)

AnyConfig = PretrainConfig | FinetuneConfig


def save_config(config: PretrainConfig | FinetuneConfig, workdir: Path) -> None:
    """Writes the config of a run."""
    write_json(workdir / CONFIG_FILE, {"version": CONFIG_VERSION, **config_fields(config)})


def read_config(workdir: str | Path) -> PretrainConfig:
    """Reads the config of a pretraining run.

    Raises:
      UsageError: not a run directory, one of a newer version, or of a fine-tuning run.
    """
    config = read_any_config(workdir)
    if isinstance(config, FinetuneConfig):
        raise UsageError(f"{workdir} is a fine-tuning run, not a pretraining run")
    return config


def read_any_config(workdir: str | Path) -> PretrainConfig | FinetuneConfig:
    """Reads the config of a run.

    Raises:
      UsageError: not a run directory, one of a newer version, or its objective or task is
        unknown, and needs a plugin.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{workdir} is not a run directory: it has no {CONFIG_FILE}")
    try:
        fields = read_object(path)
        with reading(path):
            version = fields.pop("version")
            if version > CONFIG_VERSION:
                raise UsageError(
                    f"it has version {version}, this program reads up to {CONFIG_VERSION}: upgrade"
                )
            return typed_config(fields)
    except UsageError as error:
        if isinstance(error.__cause__, UsageError) or not (Path(workdir) / "checkpoints").is_dir():
            raise
        raise UsageError(
            f"{error}; the command that made the run, given again, writes it anew"
        ) from error


def typed_config(fields: Mapping[str, Any]) -> AnyConfig:
    """The config whose sections and fields these are (see `config_fields`)."""
    return finetune_config(fields) if "task" in fields else pretrain_config(fields)


def may_change(config: AnyConfig, record: Mapping[str, Any]) -> Callable[[str], bool]:
    """Which fields a run may be resumed with other values of, as a function of their names.

    Args:
      config: of the run.
      record: of its checkpoint. Of an imported model all may change that does not change the
        shape of its state.
    """
    if isinstance(config, FinetuneConfig):
        return lambda name: name.startswith(FINETUNING_FREE_FIELDS)
    if record.get("store") == IMPORTED:
        return lambda name: not name.startswith(STATE_FIELDS)
    constant = config.optimizer.schedule == "constant"
    free = (*FREE_FIELDS, *(("train.steps",) if constant else ()))
    return lambda name: name.startswith(free)


def begun_config(workdir: Path, record: Mapping[str, Any]) -> AnyConfig:
    """The config that a run was begun with: its checkpoints', if CONFIG_FILE says otherwise.

    Raises:
      UsageError: neither has one that can be read.
    """
    if "config" not in record:
        return read_any_config(workdir)
    with reading(workdir / "checkpoints"):
        begun = typed_config(record["config"])
    try:
        check_config(read_any_config(workdir), record, workdir)
    except UsageError as error:
        log.warning("%s (the checkpoints are believed)", error)
    return begun


def check_config(config: AnyConfig, record: Mapping[str, Any], workdir: str | Path) -> None:
    """Checks that the config in a run directory is that of its checkpoint.

    Raises:
      UsageError: names the first field that is not.
    """
    path = Path(workdir) / CONFIG_FILE
    if "config" not in record:
        return
    with reading(path):
        begun = typed_config(record["config"])
    if isinstance(begun, FinetuneConfig) != isinstance(config, FinetuneConfig):
        raise UsageError(f"{path} is not of the kind of run that made the checkpoints")
    if difference := first_difference(begun, config, may_change(begun, record)):
        name, before, value = difference
        raise UsageError(
            f"{path} says {name}={value!r}, and the checkpoints were made with {before!r}: it is "
            "damaged, or was edited; put that value back"
        )
