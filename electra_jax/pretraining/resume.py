"""Whether a run directory holds the run that a config describes, and may be resumed with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.config import PretrainConfig, config_fields, first_difference
from electra_jax.config_files import flatten_fields
from electra_jax.data.minimal_pairs import fingerprint
from electra_jax.data.mixture import Mixture, source_of_row
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.parallel.rendezvous import code_fingerprint
from electra_jax.run_directory import IMPORTED, TOKENIZER, may_change


def run_fingerprint(config: PretrainConfig) -> dict[str, Any]:
    """Values that all processes of a run must share, by name (see `parallel.rendezvous`)."""
    minimal_pairs = config.eval.minimal_pairs
    return {
        **code_fingerprint(),
        **({"the minimal pairs": fingerprint(minimal_pairs)} if minimal_pairs else {}),
        "the token store": Mixture.open(config.data.store).identity,
        **dict(flatten_fields(config_fields(config), "--config.")),
    }


def check_resume(
    old: Any, new: PretrainConfig, record: Mapping[str, Any], mixture: Mixture, workdir: Path
) -> None:
    """Refuses to resume a run that would not be the same run.

    Args:
      old: the config that it was begun with.
      new: the config of now.
      record: of its latest checkpoint.
      mixture: the text of now.
      workdir: its run directory.

    The mesh, and the intervals of logs, evaluations and saves may change; so may the
    number of steps if the schedule up to here does not depend on it. Of an imported
    model all may change that does not change the shape of its state.

    Raises:
      UsageError: names the first field that differs.
    """
    if not isinstance(old, PretrainConfig):
        raise UsageError(f"{workdir} is a fine-tuning run, not a pretraining run")
    imported = record.get("store") == IMPORTED
    if imported:
        kind, instead = "an imported model", "start a new run from it with --config.init.from=DIR"
    else:
        kind, instead = "a run", "choose another --workdir"
    if difference := first_difference(old, new, may_change(new, record)):
        name, before, value = difference
        raise UsageError(
            f"the run directory holds {kind} with {name}={before!r}, not {value!r}: "
            f"keep that value, or {instead}"
        )
    if imported:
        check_imported(workdir, mixture.tokenizer)
        return
    if record.get("store") != mixture.identity:
        raise UsageError(
            "the run directory holds a run on another token store: keep that one, or "
            "choose another --workdir"
        )
    if not np.array_equal(source_of_row(old.data.store), source_of_row(new.data.store)):
        raise UsageError(
            f"the run directory holds a run with data.store={old.data.store!r}, whose weights "
            "are others: keep those, or choose another --workdir"
        )


def check_imported(workdir: Path, tokenizer: Tokenizer) -> None:
    """Refuses to resume from an imported model with text of another tokenizer.

    Raises:
      UsageError: its tokenizer is not the token store's.
    """
    folder = workdir / TOKENIZER
    if load_tokenizer(folder).identity != tokenizer.identity:
        raise UsageError(
            "the run directory holds an imported model with another tokenizer than the token "
            f"store's: prepare its text with --tokenizer {folder}, or start a new "
            "run from it with --config.init.from=DIR"
        )
