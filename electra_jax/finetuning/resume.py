"""Whether a run directory holds the fine-tuning run that a config describes."""

import contextlib
import json
from pathlib import Path
from typing import Any

from electra_jax.config import FinetuneConfig, config_fields, first_difference, flatten_fields
from electra_jax.data.collection import SCHEME
from electra_jax.errors import UsageError
from electra_jax.parallel.rendezvous import code_fingerprint
from electra_jax.run_directory import CONFIG_FILE, DATA_FILE, read_any_config

# Fields that do not change what a run computes.
FREE_FIELDS = (
    "mesh.",
    "processes.",
    "checkpoint.",
    "train.log_every",
    "train.profile",
    "train.eval_batch_size",
    "task.test",
)


def run_fingerprint(config: FinetuneConfig) -> dict[str, Any]:
    """Values that all processes of a run must have in common (see `parallel.rendezvous`)."""
    sizes = {**file_sizes(config.task.test), **data_sizes(config)}
    return {
        **code_fingerprint(),
        **{f"the size of {name}": size for name, size in sizes.items()},
        **dict(flatten_fields(config_fields(config), "--config.")),
    }


def check_unused(workdir: Path) -> None:
    """Refuses a directory that holds a model other than a fine-tuning run.

    Raises:
      UsageError: it does.
    """
    if not (workdir / CONFIG_FILE).exists():
        return
    with contextlib.suppress(UsageError):
        if isinstance(read_any_config(workdir), FinetuneConfig):
            return  # stopped before it had begun
    raise UsageError(f"{workdir} holds another model: choose another --workdir")


def check_resume(old: Any, new: FinetuneConfig, workdir: Path) -> None:
    """Refuses to resume a run that would not be the same run.

    Raises:
      UsageError: names the first field, or the file, that differs.
    """
    if difference := first_difference(old, new, lambda name: name.startswith(FREE_FIELDS)):
        name, before, value = difference
        raise UsageError(
            f"the run directory holds a run with {name}={before!r}, not {value!r}: "
            "keep that value, or choose another --workdir"
        )
    file = workdir / DATA_FILE
    begun = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name, size in data_sizes(new).items():
        if begun.get(name, size) != size:
            raise UsageError(
                f"{name} has {size:,} bytes, and had {begun[name]:,} when {workdir} was begun: "
                "choose another --workdir"
            )


def data_sizes(config: FinetuneConfig) -> dict[str, int]:
    """The size of each file of training and validation data, in bytes."""
    return file_sizes(f"{config.task.train},{config.task.validation}")


def file_sizes(sources: str) -> dict[str, int]:
    """The size of each of the sources that is a file or a folder (see `data.labelled`)."""
    sizes = {}
    for source in filter(None, map(str.strip, sources.split(","))):
        # FORMAT:PATH, a path alone, or beir:DIR[:SPLIT].
        address = source.partition(":")[2] or source
        files = [Path(address).expanduser()]
        if source.startswith(SCHEME):
            files = list(Path(address.partition(":")[0]).expanduser().rglob("*"))
        found = [file.stat().st_size for file in files if file.is_file()]
        if found:
            sizes[source] = sum(found)
    return sizes
