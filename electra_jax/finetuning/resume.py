"""Whether a run directory holds the fine-tuning run that a config describes."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

from electra_jax.config import FinetuneConfig, config_fields, first_difference
from electra_jax.config_files import flatten_fields
from electra_jax.data.collection import SCHEME, locate_collection
from electra_jax.data.labelled import locate, split_sources
from electra_jax.data.text_files import checksum
from electra_jax.errors import UsageError
from electra_jax.parallel.rendezvous import code_fingerprint
from electra_jax.run_directory import CONFIG_FILE, DATA_FILE, may_change, read_any_config
from electra_jax.system.json_files import read_object


def run_fingerprint(config: FinetuneConfig) -> dict[str, Any]:
    """Values that all processes of a run must have in common (see `parallel.rendezvous`)."""
    contents = {**describe_files(config.task.test), **describe_data(config)}
    return {
        **code_fingerprint(),
        **{f"the content of {name}": content for name, content in contents.items()},
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
    if not isinstance(old, FinetuneConfig):
        raise UsageError(f"{workdir} holds another model: choose another --workdir")
    if difference := first_difference(old, new, may_change(new, {})):
        name, before, value = difference
        raise UsageError(
            f"the run directory holds a run with {name}={before!r}, not {value!r}: "
            "keep that value, or choose another --workdir"
        )
    file = workdir / DATA_FILE
    begun = read_object(file) if file.exists() else {}
    for name, content in describe_data(new).items():
        before = begun.get(name, content)
        if isinstance(before, int):  # runs of version 0.1 have the size alone
            before = {**content, "bytes": before}
        if not isinstance(before, dict) or not isinstance(before.get("bytes"), int):
            raise UsageError(f"{file} is damaged: choose another --workdir")
        if before["bytes"] != content["bytes"]:
            raise UsageError(
                f"{name} has {content['bytes']:,} bytes, and had {before['bytes']:,} when {workdir}"
                " was begun: choose another --workdir"
            )
        if before != content:
            raise UsageError(
                f"{name} was changed since {workdir} was begun: choose another --workdir"
            )


def describe_data(config: FinetuneConfig) -> dict[str, dict[str, Any]]:
    """The content of each file of training and validation data (see `describe_files`)."""
    return {**describe_files(config.task.train), **describe_files(config.task.validation)}


def describe_files(sources: str) -> dict[str, dict[str, Any]]:
    """The size in bytes and a hash of each source that is a file, or a collection's folder."""
    contents = {}
    is_collection = sources.startswith(SCHEME)
    for source in [sources] if is_collection else split_sources(sources):
        if is_collection:
            files = sorted(p for p in locate_collection(source)[0].rglob("*") if p.is_file())
        else:
            files = [path for path in (locate(source)[1],) if path.is_file()]
        if files:
            digest = hashlib.sha256("".join(map(checksum, files)).encode()).hexdigest()
            size = sum(path.stat().st_size for path in files)
            contents[source] = {"bytes": size, "sha256": digest}
    return contents
