"""The commands as functions, for scripts and notebooks; each does what its command does.

    import electra_jax as ej

    ej.train_tokenizer("text:corpus/*.txt", "tokenizer", vocab_size=30_000)
    ej.prepare("text:corpus/*.txt", "tokenizer", "store")
    ej.pretrain("pretrain/tiny", "runs/tiny", {"data.store": "store"})
    ej.finetune("finetune/classification", "runs/mine",
                {"init.from": "runs/tiny", "task.train": "train.csv"})
    ej.load("runs/mine").predict(["a new text"])
    ej.export("runs/mine", "exported")

Errors that users can mend are raised as `UsageError`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from electra_jax.data import token_store, tokenizer_training
from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.data.token_ids import TokenIds, are_ids
from electra_jax.data.token_store import TokenStore
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.data.tokenizer_record import RECORD_NAME
from electra_jax.errors import UsageError

if TYPE_CHECKING:
    from electra_jax.training.loop import Listener
from electra_jax.system.atomic_files import atomic_folder

# What needs JAX is imported by the functions that need it: text does not.

DEFAULTS = DocumentOptions()
NONE: Mapping[str, Any] = {}


def train_tokenizer(
    text: str | Sequence[str],
    output: str | Path,
    *,
    vocab_size: int,
    kind: str = "wordpiece",
    lower_case: bool = True,
    strip_accents: bool | None = None,
    character_coverage: float | None = None,
    options: DocumentOptions = DEFAULTS,
) -> Tokenizer:
    """Trains a tokenizer on text; another one that is there already is never overwritten.

    Args:
      text: a source, such as "text:corpus/*.txt", or several (see `data.documents`).
      output: its folder, to be made.
      vocab_size, kind, lower_case, strip_accents, character_coverage: see
        `data.tokenizer_training.train_tokenizer`.
      options: of reading the text.

    Raises:
      UsageError: there is no such text, or another tokenizer in the folder.
    """
    documents = Documents([text] if isinstance(text, str) else text, options)
    with atomic_folder(output, RECORD_NAME, update=True) as folder:
        there = load_tokenizer(folder) if (folder / RECORD_NAME).exists() else None
        tokenizer = tokenizer_training.train_tokenizer(
            documents, kind=kind, vocab_size=vocab_size, lower_case=lower_case,
            strip_accents=strip_accents, character_coverage=character_coverage, progress=True,
        )  # fmt: skip
        if there and there.identity != tokenizer.identity:
            raise UsageError(
                f"{output} holds another tokenizer, which token stores may have been made with: "
                "choose another folder, or remove it"
            )
        if not there:
            tokenizer.save(folder)
    return tokenizer


def prepare(
    text: str | Sequence[str],
    tokenizer: str | Path,
    output: str | Path,
    *,
    workers: int | None = None,
    validation_share: float = 0.005,
    special_tokens: Sequence[str] = (),
    options: DocumentOptions = DEFAULTS,
) -> TokenStore:
    """Turns text into a token store; one that is there already is checked and kept.

    Args:
      text: a source, such as "text:corpus/*.txt", or several (see `data.documents`); or sources
        of token ids that exist (see `data.token_ids`).
      tokenizer: its folder or file (see `load_tokenizer`).
      output: the store, to be made.
      workers: processes; None takes all cores.
      validation_share: of documents held out.
      special_tokens: "role=token" strings, where the tokenizer's files do not tell.
      options: of reading the text.

    Raises:
      UsageError: see `data.token_store.prepare`.
    """
    loaded = load_tokenizer(tokenizer, special_tokens=special_tokens)
    sources = [text] if isinstance(text, str) else text
    if are_ids(sources):
        ids = TokenIds(sources, loaded, options)
        return token_store.write_store(
            lambda folder: ids.chunks(), loaded, output, validation_share=validation_share,
            source=ids.describe(), fraction=lambda: ids.fraction, progress=True,
        )  # fmt: skip
    documents = Documents(sources, options)
    return token_store.prepare(
        documents, loaded, output, workers=workers, validation_share=validation_share,
        source=documents.describe(),
    )  # fmt: skip


def pretrain(
    config: str,
    workdir: str | Path,
    overrides: Mapping[str, Any] = NONE,
    listener: "Listener | None" = None,
) -> dict[str, float]:
    """Pretrains into a run directory, or resumes.

    Args:
      config: FILE[:variant], such as "pretrain/tiny".
      workdir: the run directory.
      overrides: fields and their values, such as {"data.store": "store"}.
      listener: called with (step, metrics) for every line of the run's log.

    Returns:
      The held-out metrics that were logged last; empty if nothing is held out.

    Raises:
      UsageError: see `pretraining.pretrain`.
      Stopped: a signal stopped the run; it is saved, and the same call resumes it.
    """
    from electra_jax.config import load_config, pretrain_config
    from electra_jax.parallel.runtime import enable_compilation_cache
    from electra_jax.pretraining import pretrain as pretraining
    from electra_jax.pretraining.warm_start import adopt_shape
    from electra_jax.training.metrics import held_out_metrics

    enable_compilation_cache()
    given = as_strings(overrides)
    fields = load_config(config, given)
    adopt_shape(fields, given, workdir)
    pretraining.pretrain(pretrain_config(fields), workdir, listener=listener)
    return held_out_metrics(workdir)


def finetune(
    config: str,
    workdir: str | Path,
    overrides: Mapping[str, Any] = NONE,
    listener: "Listener | None" = None,
) -> dict[str, Any]:
    """Fine-tunes into a run directory, or resumes.

    Args:
      config: FILE[:variant], such as "finetune/classification".
      workdir: the run directory.
      overrides: fields and their values, such as {"init.from": "runs/tiny"}.
      listener: called with (step, metrics) for every line of the run's log.

    Returns:
      What the run's results.json holds: `metrics`, and those of simpler ways beside them.

    Raises:
      UsageError: see `finetuning.finetune`.
      Stopped: a signal stopped the run; it is saved, and the same call resumes it.
    """
    from electra_jax.config import finetune_config, load_config
    from electra_jax.finetuning import finetune as finetuning
    from electra_jax.parallel.runtime import enable_compilation_cache

    enable_compilation_cache()
    fields = load_config(config, as_strings(overrides))
    return finetuning.finetune(finetune_config(fields), workdir, listener=listener)


def export(
    model: str | Path,
    to: str | Path,
    checkpoint: str = "best",
    *,
    licence: str = "",
    language: str = "",
) -> list[str]:
    """Writes a model for the transformers library (see `exchange.export_model`).

    Args:
      model: its directory.
      to: is made.
      checkpoint: of a run directory.
      licence, language: for the model card; left out where empty.
    """
    from electra_jax.exchange import CardFacts, export_model

    return export_model(model, to, checkpoint, CardFacts(licence, language))


def as_strings(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as the command line has them."""
    return [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in overrides.items()
    ]
