"""The whole road, small: text, tokenizer, token store, pretraining, metrics, a page.

Every stage is what its own command runs, and is printed as that command, so that the
reader can go the same road with other text.
"""

import logging
from pathlib import Path

from electra_jax.config import load_config, pretrain_config
from electra_jax.data.documents import DocumentOptions, Documents
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.evaluation import evaluate, held_out_examples
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.inference.terminal import render_inspection, render_metrics, wants_colour
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.report import write_report
from electra_jax.system.atomic_files import is_free
from electra_jax.system.locks import one_writer

log = logging.getLogger(__name__)

SOURCE = "docs:"
VOCAB_SIZE = 4096
VALIDATION_SHARE = 0.02
TIME_BUDGET = "6m"
# Each with one word swapped for another: matrix, example, array.
SENTENCES = (
    "The function matrix the number of values in the array.",
    "Raises an error example the input has the wrong shape.",
    "This method should be called array the file is closed.",
)


def quickstart(workdir: str | Path, time_budget: str = TIME_BUDGET) -> None:
    """Runs every stage into `workdir`; stages that are done are not done again.

    Args:
      workdir: gets the tokenizer, the store and the run.
      time_budget: of pretraining.

    Raises:
      Stopped: a signal stopped the pretraining.
    """
    with one_writer(workdir):
        run_stages(Path(workdir), time_budget)


def run_stages(workdir: Path, time_budget: str) -> None:
    """Runs every stage, in a directory that no other process writes to."""
    tokenizer_dir, store_dir, run_dir = (workdir / n for n in ("tokenizer", "store", "run"))
    enable_compilation_cache()

    documents = Documents([SOURCE], DocumentOptions(min_characters=100))
    flags = f"--input {SOURCE} --min-characters 100"
    _say(f"tokenizer {flags} --vocab-size {VOCAB_SIZE} --output {tokenizer_dir}")
    if is_free(tokenizer_dir):
        tokenizer = train_tokenizer(documents, "wordpiece", VOCAB_SIZE, progress=True)
        tokenizer.save(tokenizer_dir)

    _say(
        f"prepare {flags} --tokenizer {tokenizer_dir} "
        f"--validation-share {VALIDATION_SHARE} --output {store_dir}"
    )
    prepare(
        documents,
        load_tokenizer(tokenizer_dir),
        store_dir,
        validation_share=VALIDATION_SHARE,
        source=documents.describe(),
    )

    overrides = [f"data.store={store_dir}", f"train.time_budget={time_budget}"]
    arguments = " ".join(f"--config.{override}" for override in overrides)
    _say(f"pretrain --config pretrain/tiny {arguments} --workdir {run_dir}")
    pretrain(pretrain_config(load_config("pretrain/tiny", overrides)), run_dir)

    _say(f"evaluate --workdir {run_dir}")
    print(render_metrics(evaluate(run_dir)))

    for sentence in SENTENCES:
        _say(f'inspect --model {run_dir} "{sentence}"')
        tokens = load_pretrained(run_dir).inspect(sentence)
        print(render_inspection(tokens, colour=wants_colour()))

    _say(f"report --workdir {run_dir}")
    print(f"report: {write_report(run_dir, held_out_examples(run_dir))}")


def _say(command: str) -> None:
    log.info("\n$ electra-jax %s", command)
