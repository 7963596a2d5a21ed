"""The files of a run directory, by name, and its config.

config.json  checkpoints/  metrics.jsonl  tensorboard/  tokenizer/  report/  profile/
minimal_pairs.json
of fine-tuning also: task.json  data.json  results.json  predictions/
of several fine-tuning runs: runs.json  results.md, and a run directory for each
"""

import json
from pathlib import Path

from electra_jax.atomic_files import write_json
from electra_jax.config import (
    FinetuneConfig,
    PretrainConfig,
    config_fields,
    finetune_config,
    pretrain_config,
)
from electra_jax.errors import UsageError

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
        fields = json.loads(path.read_text())
        version = fields.pop("version")
        if version > CONFIG_VERSION:
            raise UsageError(
                f"it has version {version}, this program reads up to {CONFIG_VERSION}: upgrade"
            )
        return finetune_config(fields) if "task" in fields else pretrain_config(fields)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error!r}") from error
