"""A run directory → one HTML page that says how the run went (see `electra_jax.reporting`)."""

from collections.abc import Sequence
from pathlib import Path

from electra_jax.errors import UsageError
from electra_jax.reporting.page import render
from electra_jax.reporting.run import read_run
from electra_jax.reporting.samples import Sample
from electra_jax.run_directory import REPORT
from electra_jax.system.atomic_files import write_text
from electra_jax.system.locks import one_writer
from electra_jax.tasks.task import Judgement

PAGE = "index.html"


def write_report(
    workdir: str | Path,
    examples: Sequence[Sample] = (),
    judgements: Sequence[Judgement] = (),
    compare: Sequence[str | Path] = (),
) -> Path:
    """Writes `report/index.html` of a run directory.

    Args:
      workdir: of the run.
      examples: held-out texts as its networks see them (`evaluation.held_out_examples`).
      judgements: its answers to validation rows (`evaluation.held_out_judgements`).
      compare: run directories to lay beside it.

    Returns:
      The page.

    Raises:
      UsageError: a run has logged nothing, a file in it is damaged, or the page cannot be written.
    """
    run, *others = [read_run(folder) for folder in (workdir, *compare)]
    text = render(run, others, examples, judgements)
    page = Path(workdir) / REPORT / PAGE
    with one_writer(page.parent):
        try:
            write_text(page, text)
        except OSError as error:
            raise UsageError(f"{page} cannot be written: {error.strerror}") from error
    return page
