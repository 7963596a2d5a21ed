"""The command `electra-jax`: parse flags, load the config, call one function.

What a command needs is imported when it runs, so `--help` is quick. An error the user
can mend ends in one line and exit status 2.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from electra_jax import __version__
from electra_jax.ending import INTERRUPTED as INTERRUPTED
from electra_jax.ending import ending_at_once, leave
from electra_jax.errors import PREEMPTED as PREEMPTED
from electra_jax.errors import Stopped, UsageError
from electra_jax.failures import explain
from electra_jax.flags import (
    OVERRIDE,
    Parser,
    add_config_flags,
    add_model_flags,
    add_plugin_flag,
    add_seed_flags,
    add_source_flags,
    split_overrides,
)
from electra_jax.plugins import fingerprint, import_plugin
from electra_jax.streams import drop_output, guarded_streams, tell

if TYPE_CHECKING:
    from electra_jax.data.documents import DocumentOptions

ARGUMENTS = "the command line"  # among what all processes must have in common


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    with guarded_streams():
        try:
            with ending_at_once():
                status = run_command(sys.argv[1:] if argv is None else argv)
                sys.stdout.flush()
        except BrokenPipeError:
            # The reader of our output has gone; what it wanted, it has.
            drop_output()
            status = 0
        except BaseException as error:
            failure = explain(error)
            if failure is None:
                raise
            tell(failure, sys.stdout if isinstance(error, Stopped) else sys.stderr)
            status = failure.status
    if argv is None:
        leave(status)
    return status


def run_command(argv: Sequence[str]) -> int:
    """Parses flags and runs their command; returns its exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("electra_jax").setLevel(logging.INFO)
    # TensorFlow makes batches here and nothing else: what it says of its kernels is noise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    argv, overrides = split_overrides(argv)
    try:
        args = build_parser().parse_args(argv)
    except SystemExit:  # after --help and --version
        sys.stdout.flush()
        raise
    if overrides and not hasattr(args, "config"):
        raise UsageError(f"{args.command} takes no {OVERRIDE}{overrides[0].split('=')[0]}")
    check_folder()
    args.overrides = overrides
    for module in args.plugin:
        import_plugin(module)
    words = " ".join([*argv, *sorted(overrides)])
    args.shared = {ARGUMENTS: words, **fingerprint(args.plugin)}
    return args.run(args) or 0


def check_folder() -> None:
    """Refuses to run where there is no current directory any more.

    Raises:
      UsageError: it was removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(
            f"the current directory cannot be used ({error.strerror}): change to another one"
        ) from error


def build_parser() -> argparse.ArgumentParser:
    """The flags of every command."""
    parser = Parser("electra-jax", description="ELECTRA: from raw text to an encoder.")
    parser.add_argument("--version", action="version", version=f"electra-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run, plugin=[])
        return sub

    sub = command("tokenizer", run_tokenizer, "train a tokenizer on text")
    add_source_flags(sub)
    sub.add_argument("--vocab-size", type=int, required=True, metavar="N")
    sub.add_argument("--output", required=True, metavar="DIR")
    sub.add_argument("--kind", default="wordpiece", help="wordpiece (default), unigram or bpe")
    sub.add_argument("--lower-case", action=argparse.BooleanOptionalAction, default=True)
    sub.add_argument("--strip-accents", action=argparse.BooleanOptionalAction, default=None)
    sub.add_argument("--character-coverage", type=float, default=None, metavar="SHARE")

    sub = command("prepare", run_prepare, "turn text into a token store")
    add_source_flags(sub)
    sub.add_argument("--tokenizer", required=True, metavar="DIR", help="or a file (vocab.txt, …)")
    sub.add_argument("--special-token", action="append", default=[], metavar="ROLE=TOKEN")
    sub.add_argument("--output", required=True, metavar="STORE")
    sub.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N")
    sub.add_argument("--validation-share", type=float, default=0.005, metavar="SHARE")
    sub.add_argument(
        "--beam", action="store_true",
        help="let the workers of Apache Beam do it; what stands after -- are Beam's flags",
    )  # fmt: skip
    sub.add_argument("beam_flags", nargs="*", metavar="BEAM_FLAG", help="after --")

    sub = command("pretrain", run_pretrain, "pretrain a generator and a discriminator")
    add_config_flags(sub)
    sub.add_argument("--workdir", required=True, metavar="DIR")

    sub = command("finetune", run_finetune, "fine-tune an encoder for a task")
    add_config_flags(sub)
    sub.add_argument("--workdir", required=True, metavar="DIR")
    sub.add_argument(
        "--sweep", nargs="+", default=[], metavar="FIELD=A,B", help="all combinations of values"
    )
    add_seed_flags(sub)

    sub = command("glue", run_glue, "fine-tune on all of GLUE")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--data", required=True, action="append", metavar="DIR")
    sub.add_argument("--workdir", required=True, metavar="DIR")
    sub.add_argument("--config", default="glue", choices=("glue", "glue:paper"))
    add_plugin_flag(sub)
    add_seed_flags(sub)

    sub = command("predict", run_predict, "answer new rows with a fine-tuned model")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--input", required=True, metavar="FILE|-")
    sub.add_argument("--output", default="-", metavar="FILE|-")
    sub.add_argument("--format", default="", help="of the input, where its ending does not tell")
    add_model_flags(sub)

    sub = command("embed", run_embed, "turn texts into vectors")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--input", required=True, metavar="FILE|-")
    sub.add_argument("--output", required=True, metavar="FILE.npy")
    sub.add_argument("--format", default="", help="of the input, where its ending does not tell")
    sub.add_argument("--column", default="text", help="or several, with commas, as one text")
    sub.add_argument(
        "--pooling", default="", choices=("mean", "cls"),
        help="default: as a retrieval model was trained, and mean for others",
    )  # fmt: skip
    add_model_flags(sub)

    sub = command("evaluate", run_evaluate, "held-out metrics of a model")
    sub.add_argument(
        "--workdir", "--model", required=True, metavar="DIR",
        help="a run directory, or an exported or Hugging Face one",
    )  # fmt: skip
    sub.add_argument(
        "--data", default="", metavar="DATA",
        help="a token store, or labelled rows of a fine-tuned model; default: the run's own",
    )  # fmt: skip
    sub.add_argument("--split", default="validation", choices=("validation", "train"))
    sub.add_argument(
        "--minimal-pairs", default="", metavar="FILE",
        help="score sentence pairs instead: JSON lines with BLiMP's fields",
    )  # fmt: skip
    sub.add_argument(
        "--pairs-per-paradigm", type=int, default=0, metavar="N",
        help="of the minimal pairs, the first of each paradigm; default: all",
    )  # fmt: skip
    add_model_flags(sub)
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    sub = command("inspect", run_inspect, "show which tokens of a text look replaced")
    sub.add_argument("--model", required=True, metavar="DIR")
    add_model_flags(sub)
    sub.add_argument("--json", action="store_true", help="print JSON instead of colours")
    sub.add_argument("text", nargs="+", metavar="TEXT")

    sub = command("export", run_export, "write both networks for the transformers library")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--to", required=True, metavar="DIR")
    add_model_flags(sub)

    sub = command("import", run_import, "make a run directory of a model from elsewhere")
    sub.add_argument(
        "--from", dest="source", required=True, metavar="DIR",
        help="a Hugging Face directory, or the prefix of an official TF1 checkpoint",
    )  # fmt: skip
    sub.add_argument("--to", required=True, metavar="DIR")
    sub.add_argument("--generator", default=None, metavar="DIR", help="where it lies apart")
    sub.add_argument("--vocab", default="", metavar="FILE", help="vocab.txt of a TF1 checkpoint")
    sub.add_argument("--special-token", action="append", default=[], metavar="ROLE=TOKEN")

    sub = command("plan", run_plan, "what a config costs, and whether it fits a TPU slice")
    add_config_flags(sub)
    sub.add_argument("--topology", default="", metavar="KIND:SIZE", help="such as v5e:4x4")
    sub.add_argument("--search", action="store_true", help="try meshes and microbatches on it")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    sub = command("report", run_report, "write a page with a run's curves and samples")
    sub.add_argument("--workdir", required=True, metavar="DIR")
    add_model_flags(sub)

    sub = command("quickstart", run_quickstart, "the whole road, small, on text that is here")
    sub.add_argument("--workdir", default="runs/quickstart", metavar="DIR")
    sub.add_argument("--time-budget", default="6m", metavar="TIME", help="of pretraining")
    return parser


def document_options(args: argparse.Namespace) -> "DocumentOptions":
    """The options of reading documents that the flags of `add_source_flags` give."""
    from electra_jax.data.documents import DocumentOptions

    return DocumentOptions(
        column=args.column,
        min_characters=args.min_characters,
        max_characters=args.max_characters,
        deduplicate=args.deduplicate,
        data_dir=args.data_dir,
    )


def run_tokenizer(args: argparse.Namespace) -> None:
    from electra_jax.atomic_files import atomic_folder
    from electra_jax.data.documents import Documents
    from electra_jax.data.tokenizer import RECORD_NAME
    from electra_jax.data.tokenizer_training import train_tokenizer

    documents = Documents(args.input, document_options(args))
    with atomic_folder(args.output, RECORD_NAME, update=True) as folder:
        tokenizer = train_tokenizer(
            iter(documents),
            kind=args.kind,
            vocab_size=args.vocab_size,
            lower_case=args.lower_case,
            strip_accents=args.strip_accents,
            character_coverage=args.character_coverage,
        )
        tokenizer.save(folder)
    print(f"{tokenizer.kind} tokenizer of {tokenizer.vocab_size:,} pieces: {args.output}")


def run_prepare(args: argparse.Namespace) -> None:
    from electra_jax.data.documents import Documents
    from electra_jax.data.token_store import prepare
    from electra_jax.data.tokenizer import load_tokenizer

    if args.beam_flags and not args.beam:
        raise UsageError(f"{args.beam_flags[0]}: only --beam takes flags after --")
    options = document_options(args)
    tokenizer = load_tokenizer(args.tokenizer, special_tokens=args.special_token)
    if args.beam:
        from electra_jax.data.beam import prepare_on_beam

        store = prepare_on_beam(
            args.input,
            options,
            tokenizer,
            args.output,
            args.beam_flags,
            validation_share=args.validation_share,
        )
    else:
        documents = Documents(args.input, options)
        store = prepare(
            documents,
            tokenizer,
            args.output,
            workers=args.workers,
            validation_share=args.validation_share,
            source=documents.describe(),
        )
    for name in ("train", "validation"):
        split = store.split(name)
        documents_count = len(split.documents) - 1
        print(f"{name}: {len(split.tokens):,} tokens, {documents_count:,} documents")
    if unknown := store.describe_unknown():
        print(unknown)
    print(f"token store: {args.output}")


def run_pretrain(args: argparse.Namespace) -> None:
    from electra_jax.config import load_config, pretrain_config
    from electra_jax.parallel.runtime import enable_compilation_cache, process_group
    from electra_jax.pretraining.pretrain import pretrain
    from electra_jax.pretraining.resume import run_fingerprint

    config = pretrain_config(load_config(args.config, args.overrides))
    enable_compilation_cache()
    with process_group(lambda: {**args.shared, **run_fingerprint(config)}, config.processes):
        pretrain(config, args.workdir)


def run_finetune(args: argparse.Namespace) -> None:
    from electra_jax.config import finetune_config, load_config
    from electra_jax.finetuning.resume import run_fingerprint
    from electra_jax.finetuning.sweep import run_all
    from electra_jax.parallel.runtime import enable_compilation_cache, process_group

    config = finetune_config(load_config(args.config, args.overrides))
    enable_compilation_cache()
    with process_group(lambda: {**args.shared, **run_fingerprint(config)}, config.processes):
        table = run_all(
            args.config, args.overrides, args.workdir, args.seeds, args.sweep, args.baseline
        )
    print(table)


def run_glue(args: argparse.Namespace) -> None:
    from electra_jax.finetuning.glue import glue, run_fingerprint
    from electra_jax.parallel.rendezvous import ProcessesConfig
    from electra_jax.parallel.runtime import enable_compilation_cache, process_group

    enable_compilation_cache()
    variant = args.config.partition(":")[2]
    with process_group(lambda: {**args.shared, **run_fingerprint(args.data)}, ProcessesConfig()):
        table = glue(
            args.model, args.data, args.workdir, args.seeds, args.baseline, args.overrides, variant
        )
    print(table)


def run_predict(args: argparse.Namespace) -> None:
    from electra_jax.inference.files import predict_file

    predict_file(args.model, args.input, args.output, args.format, args.checkpoint)


def run_embed(args: argparse.Namespace) -> None:
    from electra_jax.inference.files import embed_file

    shape = embed_file(
        args.model, args.input, args.output, args.format, args.column, args.pooling, args.checkpoint
    )
    print(f"{shape[0]:,} vectors of {shape[1]:,} numbers: {args.output}")


def run_evaluate(args: argparse.Namespace) -> None:
    from electra_jax.evaluate import evaluate, evaluate_minimal_pairs
    from electra_jax.inference.terminal import render_metrics, render_minimal_pairs

    if args.pairs_per_paradigm and not args.minimal_pairs:
        raise UsageError("--pairs-per-paradigm is of --minimal-pairs FILE: give that, too")
    if args.minimal_pairs:
        if args.data:
            raise UsageError("--minimal-pairs and --data are two evaluations: give one of them")
        found = evaluate_minimal_pairs(
            args.workdir,
            args.minimal_pairs,
            args.checkpoint,
            args.pairs_per_paradigm,
            progress=True,
        )
        print(json.dumps(found) if args.json else render_minimal_pairs(found))
        return
    metrics = evaluate(args.workdir, args.data, args.split, args.checkpoint)
    print(json.dumps(metrics) if args.json else render_metrics(metrics))


def run_inspect(args: argparse.Namespace) -> None:
    from electra_jax.inference.pretrained import load_pretrained
    from electra_jax.inference.terminal import render_inspection

    model = load_pretrained(args.model, args.checkpoint)
    for text in args.text:
        tokens = model.inspect(text)
        if args.json:
            print(json.dumps({"text": text, "tokens": [token._asdict() for token in tokens]}))
        else:
            print(render_inspection(tokens, colour=sys.stdout.isatty()), end="\n\n")


def run_export(args: argparse.Namespace) -> None:
    from electra_jax.export import export_model

    print("exported:", ", ".join(export_model(args.model, args.to, args.checkpoint)))


def run_import(args: argparse.Namespace) -> None:
    from electra_jax.export import import_model

    fresh = import_model(args.source, args.to, args.generator, args.vocab, args.special_token)
    made = f" (made fresh: {', '.join(fresh)})" if fresh else ""
    print(f"imported: {args.to}{made}")


def run_plan(args: argparse.Namespace) -> None:
    from electra_jax.config import load_config
    from electra_jax.planning.render import write_plan

    fields = load_config(args.config, args.overrides)
    print(write_plan(args.config, fields, args.topology, args.search, args.json))


def run_report(args: argparse.Namespace) -> None:
    from electra_jax.evaluate import held_out_examples
    from electra_jax.report import write_report

    examples = held_out_examples(args.workdir, checkpoint=args.checkpoint)
    print(f"report: {write_report(args.workdir, examples)}")


def run_quickstart(args: argparse.Namespace) -> None:
    from electra_jax.quickstart import quickstart

    quickstart(args.workdir, args.time_budget)
