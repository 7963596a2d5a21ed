"""The command `electra-jax`: parse flags, call one function, turn errors into one line.

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
from electra_jax.command_line import (
    OVERRIDE,
    build_parser,
    split_overrides,
    without_display_flags,
)
from electra_jax.errors import PREEMPTED as PREEMPTED
from electra_jax.errors import Stopped, UsageError
from electra_jax.plugins import fingerprint, import_plugin
from electra_jax.system.ending import INTERRUPTED as INTERRUPTED
from electra_jax.system.ending import ending_at_once, leave
from electra_jax.system.failures import explain
from electra_jax.system.streams import (
    drop_output,
    guarded_streams,
    log_to_terminal,
    logging_to_file,
    tell,
)

if TYPE_CHECKING:
    from electra_jax.data.documents import DocumentOptions

log = logging.getLogger(__name__)

NEXT = "next: electra-jax report --workdir {0}, or electra-jax inspect --model {0} TEXT"
NEXT_FINETUNED = "next: electra-jax predict --model {0} --input FILE"
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
            if argv is None:  # the line that is told is the last: threads may still complain
                logging.disable()
            tell(failure, sys.stdout if isinstance(error, Stopped) else sys.stderr)
            status = failure.status
    if argv is None:
        leave(status)
    return status


def run_command(argv: Sequence[str]) -> int:
    """Parses flags and runs their command; returns its exit status."""
    log_to_terminal(logging.INFO)
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
    with logging_to_file(args.log_file):
        log_to_terminal(level_of(args))
        run_parsed(args, argv, overrides)
    return 0


def level_of(args: argparse.Namespace) -> int:
    """The least level of what is logged to the terminal."""
    if args.quiet:
        return logging.WARNING
    return logging.DEBUG if args.verbose else logging.INFO


def run_parsed(args: argparse.Namespace, argv: Sequence[str], overrides: list[str]) -> None:
    """Runs the command that flags name."""
    args.overrides = overrides
    for module in args.plugin:
        import_plugin(module)
    if args.command in LONG:
        # What they import takes seconds.
        log.info("%-11s %s, starting", f"electra-jax {__version__}", args.command)
    words = " ".join([*without_display_flags(argv), *sorted(overrides)])
    args.shared = {ARGUMENTS: words, **fingerprint(args.plugin)}
    COMMANDS[args.command](args)


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
    from electra_jax.api import train_tokenizer

    tokenizer = train_tokenizer(
        args.input, args.output, vocab_size=args.vocab_size, kind=args.kind,
        lower_case=args.lower_case, strip_accents=args.strip_accents,
        character_coverage=args.character_coverage, options=document_options(args),
    )  # fmt: skip
    print(f"{tokenizer.kind} tokenizer of {tokenizer.vocab_size:,} pieces: {args.output}")


def run_prepare(args: argparse.Namespace) -> None:
    from electra_jax.api import prepare

    if args.beam_flags and not args.beam:
        raise UsageError(f"{args.beam_flags[0]}: only --beam takes flags after --")
    options = document_options(args)
    if args.beam:
        from electra_jax.data.token_ids import are_ids

        if are_ids(args.input):
            raise UsageError(f"--beam tokenizes text: {args.input[0]} needs none")
        from electra_jax.data.beam import prepare_on_beam
        from electra_jax.data.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(args.tokenizer, special_tokens=args.special_token)
        store = prepare_on_beam(
            args.input, options, tokenizer, args.output, args.beam_flags,
            validation_share=args.validation_share,
        )  # fmt: skip
    else:
        store = prepare(
            args.input, args.tokenizer, args.output, workers=args.workers,
            validation_share=args.validation_share, special_tokens=args.special_token,
            options=options,
        )  # fmt: skip
    for name in ("train", "validation"):
        split = store.split(name)
        documents_count = len(split.documents) - 1
        print(f"{name}: {len(split.tokens):,} tokens, {documents_count:,} documents")
    if unknown := store.describe_unknown():
        print(unknown)
    print(f"token store: {args.output}")


def run_verify(args: argparse.Namespace) -> None:
    from electra_jax.verify import verify

    print(verify(args.path, progress=True))


def run_replay(args: argparse.Namespace) -> None:
    from electra_jax.replay import replay

    print(replay(args.bundle))


def run_pretrain(args: argparse.Namespace) -> None:
    from electra_jax.config import load_config, pretrain_config
    from electra_jax.inference.terminal import render_metrics
    from electra_jax.parallel.runtime import enable_compilation_cache, is_main, process_group
    from electra_jax.pretraining.pretrain import pretrain
    from electra_jax.pretraining.resume import run_fingerprint
    from electra_jax.pretraining.warm_start import adopt_shape
    from electra_jax.training.metrics import held_out_metrics

    fields = load_config(args.config, args.overrides)
    adopt_shape(fields, args.overrides, args.workdir)
    config = pretrain_config(fields)
    enable_compilation_cache()
    with process_group(lambda: {**args.shared, **run_fingerprint(config)}, config.processes):
        pretrain(config, args.workdir)
        if is_main():
            if metrics := held_out_metrics(args.workdir):
                print(render_metrics(metrics))
            print(NEXT.format(args.workdir))


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
    if args.seeds == 1 and not args.sweep and not args.baseline:
        print(NEXT_FINETUNED.format(args.workdir))


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
    from electra_jax.evaluation import evaluate, evaluate_minimal_pairs
    from electra_jax.inference.terminal import render_metrics, render_minimal_pairs

    if args.pairs_per_paradigm and not args.minimal_pairs:
        raise UsageError("--pairs-per-paradigm is of --minimal-pairs FILE: give that, too")
    if args.minimal_pairs:
        if args.data:
            raise UsageError("--minimal-pairs and --data are two evaluations: give one of them")
        pairs, most = args.minimal_pairs, args.pairs_per_paradigm
        found = evaluate_minimal_pairs(args.workdir, pairs, args.checkpoint, most, progress=True)
        print(json.dumps(found) if args.json else render_minimal_pairs(found))
        return
    metrics = evaluate(args.workdir, args.data, args.split, args.checkpoint)
    print(json.dumps(metrics) if args.json else render_metrics(metrics))


def run_inspect(args: argparse.Namespace) -> None:
    from electra_jax.inference.pretrained import load_pretrained
    from electra_jax.inference.terminal import render_inspection, wants_colour

    model = load_pretrained(args.model, args.checkpoint)
    for text in args.text:
        tokens = model.inspect(text)
        if args.json:
            print(json.dumps({"text": text, "tokens": [token._asdict() for token in tokens]}))
        else:
            print(render_inspection(tokens, colour=wants_colour()), end="\n\n")


def run_export(args: argparse.Namespace) -> None:
    import tempfile

    from electra_jax.api import export
    from electra_jax.interop.hub import push

    if not (args.to or args.push):
        raise UsageError("give --to DIR, --push NAME, or both")
    if (args.revision or args.private) and not args.push:
        raise UsageError("--revision and --private are of --push NAME: give that, too")
    with tempfile.TemporaryDirectory() as scratch:
        to = args.to or os.path.join(scratch, "exported")
        written = export(
            args.model, to, args.checkpoint, licence=args.licence, language=args.language
        )
        if args.to:
            print("exported:", ", ".join(written))
        if args.push:
            print("pushed:", push(to, args.push, args.revision, args.private))


def run_import(args: argparse.Namespace) -> None:
    from electra_jax.exchange import import_model

    fresh = import_model(args.source, args.to, args.generator, args.vocab, args.special_token)
    made = f" (made fresh: {', '.join(fresh)})" if fresh else ""
    print(f"imported: {args.to}{made}")


def run_plan(args: argparse.Namespace) -> None:
    from electra_jax.config import load_config
    from electra_jax.planning.render import write_plan

    fields = load_config(args.config, args.overrides)
    print(write_plan(args.config, fields, args.topology, args.search, args.json))


def run_configs(args: argparse.Namespace) -> None:
    from electra_jax.config_reference import render_configs

    print(render_configs())


def run_config(args: argparse.Namespace) -> None:
    from electra_jax.config_reference import render_fields

    print(render_fields(args.name))


def run_report(args: argparse.Namespace) -> None:
    from electra_jax.evaluation import held_out_examples, held_out_judgements
    from electra_jax.report import write_report

    examples = held_out_examples(args.workdir, checkpoint=args.checkpoint)
    judgements = held_out_judgements(args.workdir, args.checkpoint)
    print(f"report: {write_report(args.workdir, examples, judgements, args.compare)}")


def run_quickstart(args: argparse.Namespace) -> None:
    from electra_jax.quickstart import quickstart

    quickstart(args.workdir, args.time_budget)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "tokenizer": run_tokenizer,
    "prepare": run_prepare,
    "verify": run_verify,
    "pretrain": run_pretrain,
    "replay": run_replay,
    "finetune": run_finetune,
    "glue": run_glue,
    "predict": run_predict,
    "embed": run_embed,
    "evaluate": run_evaluate,
    "inspect": run_inspect,
    "export": run_export,
    "import": run_import,
    "plan": run_plan,
    "configs": run_configs,
    "config": run_config,
    "report": run_report,
    "quickstart": run_quickstart,
}
# Those that say at once that they have begun.
LONG = {
    "tokenizer", "prepare", "pretrain", "finetune", "glue", "evaluate", "export", "import", "plan",
    "report", "quickstart",
}  # fmt: skip
