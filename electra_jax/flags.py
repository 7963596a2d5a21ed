"""Flags that several commands share, and the overrides of a config among them."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from electra_jax.errors import UsageError

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
        raise UsageError(f"{message} (see {self.prog} --help)")


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
