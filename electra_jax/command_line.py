"""The flags of the command `electra-jax`, and how they are read."""

import argparse
import itertools
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from electra_jax import __version__
from electra_jax.errors import UsageError, did_you_mean

SOURCE = "docs:, text:GLOB, jsonl:GLOB, parquet:GLOB or tfds:NAME; may be repeated"
OVERRIDE = "--config."


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
    parser = Parser("electra-jax", description="ELECTRA: from raw text to an encoder.")
    parser.add_argument("--version", action="version", version=f"electra-jax {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(plugin=[])
        return sub

    sub = command("tokenizer", "train a tokenizer on text")
    add_source_flags(sub)
    sub.add_argument("--vocab-size", type=int, required=True, metavar="N")
    sub.add_argument("--output", required=True, metavar="DIR")
    sub.add_argument("--kind", default="wordpiece", help="wordpiece (default), unigram or bpe")
    sub.add_argument("--lower-case", action=argparse.BooleanOptionalAction, default=True)
    sub.add_argument("--strip-accents", action=argparse.BooleanOptionalAction, default=None)
    sub.add_argument("--character-coverage", type=float, default=None, metavar="SHARE")

    sub = command("prepare", "turn text into a token store")
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

    sub = command("verify", "compare a token store with its checksums")
    sub.add_argument("path", metavar="PATH")

    sub = command("pretrain", "pretrain a generator and a discriminator")
    add_config_flags(sub)
    sub.add_argument("--workdir", required=True, metavar="DIR")

    sub = command("finetune", "fine-tune an encoder for a task")
    add_config_flags(sub)
    sub.add_argument("--workdir", required=True, metavar="DIR")
    sub.add_argument(
        "--sweep", nargs="+", default=[], metavar="FIELD=A,B", help="all combinations of values"
    )
    add_seed_flags(sub)

    sub = command("glue", "fine-tune on all of GLUE")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--data", required=True, action="append", metavar="DIR")
    sub.add_argument("--workdir", required=True, metavar="DIR")
    sub.add_argument("--config", default="glue", choices=("glue", "glue:paper"))
    add_plugin_flag(sub)
    add_seed_flags(sub)

    sub = command("predict", "answer new rows with a fine-tuned model")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--input", required=True, metavar="FILE|-")
    sub.add_argument("--output", default="-", metavar="FILE|-")
    sub.add_argument("--format", default="", help="of the input, where its ending does not tell")
    add_model_flags(sub)

    sub = command("embed", "turn texts into vectors")
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

    sub = command("evaluate", "held-out metrics of a model")
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

    sub = command("inspect", "show which tokens of a text look replaced")
    sub.add_argument("--model", required=True, metavar="DIR")
    add_model_flags(sub)
    sub.add_argument("--json", action="store_true", help="print JSON instead of colours")
    sub.add_argument("text", nargs="+", metavar="TEXT")

    sub = command("export", "write both networks for the transformers library")
    sub.add_argument("--model", required=True, metavar="DIR")
    sub.add_argument("--to", required=True, metavar="DIR")
    add_model_flags(sub)

    sub = command("import", "make a run directory of a model from elsewhere")
    sub.add_argument(
        "--from", dest="source", required=True, metavar="DIR",
        help="a Hugging Face directory, or the prefix of an official TF1 checkpoint",
    )  # fmt: skip
    sub.add_argument("--to", required=True, metavar="DIR")
    sub.add_argument("--generator", default=None, metavar="DIR", help="where it lies apart")
    sub.add_argument("--vocab", default="", metavar="FILE", help="vocab.txt of a TF1 checkpoint")
    sub.add_argument("--special-token", action="append", default=[], metavar="ROLE=TOKEN")

    sub = command("plan", "what a config costs, and whether it fits a TPU slice")
    add_config_flags(sub)
    sub.add_argument("--topology", default="", metavar="KIND:SIZE", help="such as v5e:4x4")
    sub.add_argument("--search", action="store_true", help="try meshes and microbatches on it")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    command("configs", "list the shipped configs and their variants")

    sub = command("config", "print all fields of a config, and what they mean")
    sub.add_argument("name", metavar="FILE[:VARIANT]", help="such as pretrain/tiny")
    add_plugin_flag(sub)

    sub = command("report", "write a page with a run's curves and samples")
    sub.add_argument("--workdir", required=True, metavar="DIR")
    add_model_flags(sub)

    sub = command("quickstart", "the whole road, small, on text that is here")
    sub.add_argument("--workdir", default="runs/quickstart", metavar="DIR")
    sub.add_argument("--time-budget", default="6m", metavar="TIME", help="of pretraining")
    return parser


def add_source_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that read text."""
    sub.add_argument("--input", required=True, action="append", metavar="SOURCE", help=SOURCE)
    sub.add_argument("--column", default="text", help="of jsonl, parquet and tfds")
    sub.add_argument("--min-characters", type=int, default=0, metavar="N")
    sub.add_argument("--max-characters", type=int, default=None, metavar="N")
    sub.add_argument("--deduplicate", action="store_true", help="drop exact duplicates")
    sub.add_argument("--data-dir", default=None, metavar="DIR", help="of tfds")


def add_config_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that take a config."""
    sub.add_argument("--config", required=True, metavar="FILE[:VARIANT]")
    add_plugin_flag(sub)
    sub.epilog = f"Any field of the config is overridden by {OVERRIDE}section.field=value."


def add_model_flags(sub: argparse.ArgumentParser) -> None:
    """Flags of the commands that load a model."""
    sub.add_argument("--checkpoint", default="best", metavar="best|last|STEP")
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
