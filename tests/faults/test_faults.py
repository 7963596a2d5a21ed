"""A short part of `make faults`: some kills, corruptions and tables, in a process of its own.

The harness forks, which a process that has run JAX cannot do safely.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "run.py"


def survives(*arguments):
    command = [sys.executable, str(HARNESS), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]


@pytest.mark.slow
def test_some_kills_and_corruptions_are_survived():
    survives("--parts", "kills", "corruptions", "--kills", "6", "--corruptions", "12",
             "--only", "tokenizer pretrain export")  # fmt: skip


@pytest.mark.full
def test_the_world_around_a_command_is_survived():
    survives("--parts", "tables", "--only", "tokenizer prepare export embed")
