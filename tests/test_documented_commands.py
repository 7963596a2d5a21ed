"""Every `electra-jax …` command of README and docs has flags, configs and fields that there are."""

import contextlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from electra_jax.command_line import build_parser, split_overrides
from electra_jax.config import load_config
from electra_jax.errors import UsageError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "launch/README.md", *sorted((ROOT / "docs").glob("*.md"))]
STARTS = re.compile(r"(?:^|[|`(\s])electra-jax\s+(?=[a-z-])")


class Command(NamedTuple):
    page: str
    line: int
    text: str


def commands(page: Path) -> list[Command]:
    """The commands of a page's code blocks, and those between backquotes that name flags."""
    found, fenced = [], False
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        first, line = number, lines[number]
        number += 1
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif line.startswith("    ") or fenced:
            while line.endswith("\\") and number < len(lines):
                line = line[:-1] + " " + lines[number].strip()
                number += 1
            if match := STARTS.search(f" {line}"):
                found.append(Command(page.name, first + 1, f" {line}"[match.end() :]))
    prose = re.sub(r"(?ms)^```.*?^```|^    .*?$", "", page.read_text())
    for match in re.finditer(r"`electra-jax\s+([a-z]+\s[^`]*)`", prose):
        found.append(Command(page.name, 0, " ".join(match[1].split())))
    return found


ALL = [command for page in PAGES for command in commands(page)]


def words_of(text: str) -> list[str]:
    """The words of a command, up to what the shell does with its output."""
    words = []
    for word in shlex.split(text, comments=True):
        if word in ("|", ">", "&&", ";", "&"):
            break
        words.append(word)
    return words


def is_whole(words: list[str]) -> bool:
    """Whether a command is given as it is typed: not `electra-jax pretrain … --config.x=1`."""
    return not any("…" in word or word == "..." for word in words)


def test_there_are_commands():
    assert len(ALL) > 60
    assert {"README.md", "finetuning.md", "preparing_text.md"} <= {one.page for one in ALL}


@pytest.mark.parametrize("command", ALL, ids=lambda c: f"{c.page}:{c.line}:{c.text[:30]}")
def test_it_parses(command):
    try:
        check(command.text)
    except UsageError as error:
        # In a sentence a command may be named without all its flags.
        if command.line or not re.search("are required|expected one argument", str(error)):
            raise


def check(text: str) -> None:
    """Raises: UsageError if a flag, a shipped config or a field does not exist."""
    words = words_of(text)
    flags, overrides = split_overrides(words)
    parser = build_parser()
    with contextlib.suppress(SystemExit):  # after --help
        if is_whole(words):
            parser.parse_args(flags)
        elif flags and flags[0] not in parser._subparsers._group_actions[0].choices:
            raise UsageError(f"no command {flags[0]}")
    spec = flags[flags.index("--config") + 1] if "--config" in flags else ""
    if flags[:1] == ["config"] and len(flags) > 1:
        spec = flags[1]
    # FILE or pretrain/CONFIG stand for any; count_capitals.py is one that the page tells to make.
    if "glue" in flags[:1] or not spec or spec == "…" or spec.split("/")[-1].isupper():
        return
    if spec.endswith(".py"):
        return
    load_config(spec, [one for one in overrides if "…" not in one])


@pytest.mark.parametrize(
    "text",
    [
        "prepare --input docs: --tokeniser t --output o",
        "pretrain --config pretrain/tny --workdir w",
        "pretrain --config pretrain/tiny --workdir w --config.train.stepz=3",
        "config pretrain/tiny:mdern",
    ],
)
def test_a_wrong_command_is_found(text):
    with pytest.raises(UsageError):
        check(text)
