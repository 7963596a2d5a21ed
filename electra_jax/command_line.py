"""The flags of the command `electra-jax`, and how they are read."""

import argparse
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from electra_jax import __version__
from electra_jax.errors import UsageError, did_you_mean

SOURCE = (
    "docs:, text:GLOB, lines:GLOB, jsonl:GLOB, parquet:GLOB, arrow:GLOB or tfds:NAME; may be "
    "repeated"
)
MODEL = "a run directory, an exported or Hugging Face one, or hub:NAME[@REVISION]"
OVERRIDE = "--config."
LOG_FILE = "--log-file"
DISPLAY_FLAGS = ("-q", "--quiet", "-v", "--verbose")


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags, and the `--config.section.field=value` among them, in whatever order.

    The value may stand in an argument of its own.
    """
    flags, overrides = [], []
    rest = list(argv)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith(OVERRIDE):
            flags.append(flag)
            continue
        if "=" not in flag and rest and not rest[0].startswith("--"):
            flag = f"{flag}={rest.pop(0)}"
        overrides.append(flag.removeprefix(OVERRIDE))
    return flags, overrides


def without_display_flags(argv: Sequence[str]) -> list[str]:
    """Flags that change what is done, and not only what is shown of it."""
    left, rest = [], list(argv)
    while rest:
        flag = rest.pop(0)
        if flag == LOG_FILE:
            del rest[:1]
        elif flag not in DISPLAY_FLAGS and not flag.startswith(f"{LOG_FILE}="):
            left.append(flag)
    return left


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like every other error of this command."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if unknown := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            hint = did_you_mean(unknown[1], re.findall(r"[\w-]+", unknown[2]))
        raise UsageError(f"{message}{hint} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Names a flag that does not exist before one that is missing."""
        known = self._option_string_actions
        for word in [] if self._subparsers else itertools.takewhile("--".__ne__, args):
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(f"{flag}: there is no such flag{did_you_mean(flag, known)}")
        return super().parse_known_args(args, namespace)


def build_parser() -> argparse.ArgumentParser:
    """The flags of every command."""
    parser = Parser(
        "electra-jax", description="ELECTRA: from raw text to an encoder.",
        epilog="electra-jax COMMAND --help explains a command's flags.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"electra-jax {__version__}")
    add_display_flags(parser, {"quiet": False, "verbose": False, "log_file": ""})
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False,
            epilog=f"example:\n  electra-jax {name} {example}".rstrip(), formatter_class=Formatter,
        )  # fmt: skip
        sub.set_defaults(plugin=[])
        add_display_flags(sub)
        return sub

    for add in (add_data_commands, add_training_commands, add_model_commands, add_other_commands):
        add(command)
    return parser


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that gives the default of every flag that has one, and examples on a line each."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(
            line if line.startswith("  ") else fill(line, width, indent)
            for line in text.split("\n")
        )

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, "", [], False) or "default" in (action.help or "")
        return action.help if silent else super()._get_help_string(action)


Command = Callable[[str, str, str], argparse.ArgumentParser]


def add_data_commands(command: Command) -> None:
    """The commands that text goes through before training."""
    sub = command(
        "tokenizer", "train a tokenizer on text",
        "--input 'text:corpus/*.txt' --vocab-size 30000 --output tokenizer",
    )  # fmt: skip
    add_source_flags(sub)
    add = sub.add_argument
    add("--vocab-size", type=int, required=True, metavar="N", help="pieces to learn")
    add("--output", required=True, metavar="DIR", help="the tokenizer's folder, to be made")
    add("--kind", default="wordpiece", help="wordpiece, unigram or bpe")
    add(
        "--lower-case", action=argparse.BooleanOptionalAction, default=True,
        help="lower-case all text",
    )  # fmt: skip
    add(
        "--strip-accents", action=argparse.BooleanOptionalAction, default=None,
        help="take accents off letters; default: of wordpiece as --lower-case, of others not",
    )  # fmt: skip
    add(
        "--character-coverage", type=float, metavar="SHARE",
        help="of the text, by characters that get a piece; default: as the kind's trainer has it",
    )  # fmt: skip

    sub = command(
        "prepare", "turn text into a token store",
        "--input 'text:corpus/*.txt' --tokenizer tokenizer --output store",
    )  # fmt: skip
    add_source_flags(sub, f"ids:GLOB (token ids, not text), {SOURCE}")
    add = sub.add_argument
    add(
        "--tokenizer", required=True, metavar="DIR",
        help="of `electra-jax tokenizer`, of a model, or a file (vocab.txt, …)",
    )  # fmt: skip
    add_special_token_flag(sub)
    add("--output", required=True, metavar="STORE", help="the token store, to be made")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes")
    add(
        "--validation-share", type=float, default=0.005, metavar="SHARE",
        help="of the documents, held out",
    )  # fmt: skip
    add(
        "--beam", action="store_true",
        help="let the workers of Apache Beam do it; what stands after -- are Beam's flags",
    )  # fmt: skip
    add("beam_flags", nargs="*", metavar="BEAM_FLAG", help="after --")

    sub = command("verify", "compare a token store with its checksums", "store")
    sub.add_argument("path", metavar="STORE", help="a token store")


def add_training_commands(command: Command) -> None:
    """The commands that learn."""
    sub = command(
        "pretrain", "pretrain a generator and a discriminator",
        "--config pretrain/tiny --workdir runs/tiny --config.data.store=store",
    )  # fmt: skip
    add_config_flags(sub)
    add_workdir_flag(sub)

    sub = command(
        "finetune",
        "fine-tune an encoder for a task",
        "--config finetune/classification --workdir runs/mine "
        "--config.init.from=runs/tiny --config.task.train=train.csv",
    )
    add_config_flags(sub)
    add_workdir_flag(sub)
    sub.add_argument(
        "--sweep", nargs="+", default=[], metavar="FIELD=A,B", help="all combinations of values"
    )
    add_seed_flags(sub)

    sub = command(
        "glue", "fine-tune on all of GLUE", "--model runs/small --data GLUE --workdir runs/glue"
    )
    add_model_flag(sub)
    sub.add_argument(
        "--data", required=True, action="append", metavar="DIR",
        help="with a folder for each set, as they are distributed; may be repeated",
    )  # fmt: skip
    add_workdir_flag(sub)
    sub.add_argument(
        "--config", default="glue", choices=("glue", "glue:paper"),
        help="glue:paper has the paper's settings",
    )  # fmt: skip
    add_plugin_flag(sub)
    add_seed_flags(sub)

    sub = command(
        "replay", "run a step again that was not finite", "runs/tiny/not_finite-700"
    )  # fmt: skip
    sub.add_argument("bundle", metavar="BUNDLE", help="what a run that diverged has left")
    add_plugin_flag(sub)

    sub = command("quickstart", "the whole road, small, on text that is here", "--time-budget 2m")
    sub.add_argument(
        "--workdir", default="runs/quickstart", metavar="DIR", help="where everything goes"
    )
    sub.add_argument("--time-budget", default="6m", metavar="TIME", help="of pretraining")


def add_model_commands(command: Command) -> None:
    """The commands that use a model."""
    sub = command(
        "predict", "answer new rows with a fine-tuned model",
        "--model runs/mine --input new.txt --output answers.jsonl",
    )  # fmt: skip
    add_model_flag(sub)
    add_input_flags(sub)
    sub.add_argument("--output", default="-", metavar="FILE|-", help="JSON lines; -: the terminal")
    add_checkpoint_flags(sub)

    sub = command(
        "embed", "turn texts into vectors", "--model runs/tiny --input new.txt --output new.npy"
    )
    add_model_flag(sub)
    add_input_flags(sub)
    sub.add_argument(
        "--output", required=True, metavar="FILE.npy", help="NumPy's format: a vector a text"
    )
    sub.add_argument(
        "--column", default="text", help="of the input; or several, with commas, as one text"
    )
    sub.add_argument(
        "--pooling", default="", choices=("mean", "cls"),
        help="default: as the model was trained, or the mean where that is not known",
    )  # fmt: skip
    add_checkpoint_flags(sub)

    sub = command(
        "evaluate", "held-out metrics of a model", "--workdir runs/tiny --minimal-pairs blimp.jsonl"
    )
    add = sub.add_argument
    add("--workdir", "--model", required=True, metavar="DIR", help=MODEL)
    add(
        "--data", default="", metavar="DATA",
        help="a token store, or labelled rows of a fine-tuned model; default: the run's own",
    )  # fmt: skip
    add("--split", default="validation", choices=("validation", "train"), help="of a token store")
    add(
        "--minimal-pairs", default="", metavar="FILE",
        help="score sentence pairs instead: JSON lines with BLiMP's fields",
    )  # fmt: skip
    add(
        "--pairs-per-paradigm", type=int, default=0, metavar="N",
        help="of the minimal pairs, the first of each paradigm; default: all",
    )  # fmt: skip
    add_checkpoint_flags(sub)
    add("--json", action="store_true", help="print JSON instead of a table")

    sub = command(
        "inspect", "show which tokens of a text look replaced",
        "--model runs/tiny 'The cat eats the sky.'",
    )  # fmt: skip
    add_model_flag(sub)
    add_checkpoint_flags(sub)
    sub.add_argument("--json", action="store_true", help="print JSON instead of colours")
    sub.add_argument("text", nargs="+", metavar="TEXT", help="each is looked at by itself")

    sub = command(
        "export", "write both networks for the transformers library",
        "--model runs/tiny --to exported",
    )  # fmt: skip
    add_model_flag(sub)
    add = sub.add_argument
    add("--to", default="", metavar="DIR", help="to be made; may be left out with --push")
    add("--push", default="", metavar="NAME", help="of the Hugging Face hub, such as me/small")
    add("--revision", default="", metavar="BRANCH", help="of --push; default: main")
    add("--private", action="store_true", help="of --push: a model that is made is private")
    add("--licence", default="", metavar="NAME", help="for the card, such as apache-2.0")
    add("--language", default="", metavar="CODE", help="for the card, such as en; or en,de")
    add_checkpoint_flags(sub)

    sub = command(
        "import", "make a run directory of a model from elsewhere",
        "--from electra-small-discriminator --generator electra-small-generator --to runs/imported",
    )  # fmt: skip
    add = sub.add_argument
    add(
        "--from", dest="source", required=True, metavar="DIR",
        help="a Hugging Face directory, or the prefix of an official TF1 checkpoint",
    )  # fmt: skip
    add("--to", required=True, metavar="DIR", help="to be made")
    add("--generator", default=None, metavar="DIR", help="where it lies apart")
    add("--vocab", default="", metavar="FILE", help="vocab.txt of a TF1 checkpoint")
    add_special_token_flag(sub)

    sub = command(
        "report",
        "write a page that says how a run went",
        "--workdir runs/tiny --compare runs/other",
    )
    add_workdir_flag(sub)
    sub.add_argument("--compare", nargs="+", default=[], metavar="RUN",
                     help="run directories to lay beside it")  # fmt: skip
    add_checkpoint_flags(sub)


def add_other_commands(command: Command) -> None:
    """The commands about configs."""
    sub = command(
        "plan", "what a config costs, and whether it fits a TPU slice",
        "--config pretrain/base --topology v5e:4x4",
    )  # fmt: skip
    add_config_flags(sub)
    sub.add_argument("--topology", default="", metavar="KIND:SIZE", help="such as v5e:4x4")
    sub.add_argument("--search", action="store_true", help="try meshes and microbatches on it")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    command("configs", "list the shipped configs and their variants", "")

    sub = command("config", "print all fields of a config, and what they mean", "pretrain/tiny")
    sub.add_argument("name", metavar="FILE[:VARIANT]", help="such as pretrain/tiny")
    add_plugin_flag(sub)


def add_display_flags(
    parser: argparse.ArgumentParser, defaults: Mapping[str, Any] | None = None
) -> None:
    """Flags of every command, before or after its name; only the first parser has defaults."""
    group = parser.add_argument_group("what is shown")
    level = group.add_mutually_exclusive_group()
    for flags, help in (
        (DISPLAY_FLAGS[:2], "only warnings and results, no progress"),
        (DISPLAY_FLAGS[2:], "the parts of a start with their seconds, too"),
    ):
        level.add_argument(*flags, action="store_true", default=argparse.SUPPRESS, help=help)
    group.add_argument(
        LOG_FILE, metavar="FILE", default=argparse.SUPPRESS,
        help="append all that is logged to a file, with the time",
    )  # fmt: skip
    parser.set_defaults(**defaults or {})


def add_source_flags(sub: argparse.ArgumentParser, sources: str = SOURCE) -> None:
    """Flags of the commands that read text."""
    add = sub.add_argument
    add("--input", required=True, action="append", metavar="SOURCE", help=sources)
    add("--column", default="text", help="of jsonl, parquet, arrow and tfds")
    add("--min-characters", type=int, default=0, metavar="N", help="leave shorter documents out")
    add("--max-characters", type=int, metavar="N", help="leave longer documents out")
    add("--deduplicate", action="store_true", help="drop exact duplicates")
    add("--data-dir", metavar="DIR", help="of tfds, where its data sets lie")


def add_config_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that take a config."""
    sub.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]",
        help="a Python file, or a shipped config (see `electra-jax configs`)",
    )  # fmt: skip
    add_plugin_flag(sub)
    sub.epilog = (
        f"Any field of the config is overridden by {OVERRIDE}section.field=value "
        f"(see `electra-jax config NAME`).\n\n{sub.epilog}"
    )


def add_workdir_flag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workdir", required=True, metavar="DIR", help="the run directory")


def add_model_flag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True, metavar="DIR", help=MODEL)


def add_input_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that read rows to answer."""
    sub.add_argument("--input", required=True, metavar="FILE|-", help="-: standard input")
    sub.add_argument(
        "--format", default="",
        help="of the input: lines, csv, tsv, jsonl, …; default: what its ending tells, or lines",
    )  # fmt: skip


def add_special_token_flag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--special-token", action="append", default=[], metavar="ROLE=TOKEN",
        help="a token's role where files do not tell: pad, unk, cls, sep or mask; may be repeated",
    )  # fmt: skip


def add_checkpoint_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that load a model."""
    sub.add_argument(
        "--checkpoint", default="best", metavar="best|last|STEP", help="of a run directory"
    )
    add_plugin_flag(sub)


def add_plugin_flag(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--plugin", action="append", metavar="MODULE",
        help="a module that adds objectives or tasks, imported first; may be repeated",
    )  # fmt: skip


def add_seed_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that fine-tune several times."""
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="runs with other seeds")
    sub.add_argument(
        "--baseline", action="store_true", help="fine-tune the same encoder without pretraining too"
    )
