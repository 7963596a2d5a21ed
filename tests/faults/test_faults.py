"""A short part of `make faults`: some kills, corruptions and tables, in a process of its own.

The harness forks, which a process that has run JAX cannot do safely.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "run.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--parts", "kills", "--kills", "12", "--only", "tokenizer prepare pretrain export"),
        ("--parts", "corruptions", "--corruptions", "18"),
        ("--parts", "tables", "--only", "tokenizer embed"),
    ],
    ids=lambda arguments: arguments[1],
)
def test_faults_are_survived(arguments):
    command = [sys.executable, str(HARNESS), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
