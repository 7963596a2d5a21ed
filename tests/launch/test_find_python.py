"""The newest supported Python is found by running candidates, whatever the PATH holds."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "find_python.sh"


@pytest.fixture
def machine(tmp_path):
    """A machine that has nothing but the stand-ins added to it."""

    class Machine:
        home = tmp_path / "home"
        path = tmp_path / "bin"

        def add(self, file: Path, version: str) -> str:
            """An interpreter of that version; an empty one stands for a shim that fails."""
            file.parent.mkdir(parents=True, exist_ok=True)
            answer = f"echo {version} {file}" if version else "exit 127"
            file.write_text(f"#!/bin/sh\n{answer}\n")
            file.chmod(0o755)
            return str(file)

        def find(self, *words: str) -> subprocess.CompletedProcess:
            environment = {"PATH": str(self.path), "HOME": str(self.home)}
            return subprocess.run(
                ["/bin/sh", SCRIPT, *words], env=environment, capture_output=True, text=True
            )

    machine = Machine()
    machine.path.mkdir()
    return machine


def test_newest_is_taken(machine):
    machine.add(machine.path / "python3.11", "3.11")
    newest = machine.add(machine.path / "python3.13", "3.13")
    machine.add(machine.path / "python3.12", "3.12")
    assert machine.find().stdout.strip() == newest


def test_shim_that_fails_is_passed_over(machine):
    machine.add(machine.path / "python3.13", "")
    real = machine.add(machine.home / ".pyenv/versions/3.13.0/bin/python", "3.13")
    machine.add(machine.path / "python3.12", "3.12")
    assert machine.find().stdout.strip() == real


def test_unsupported_default_is_passed_over(machine):
    machine.add(machine.path / "python3", "3.14")
    oldest = machine.add(machine.path / "python3.11", "3.11")
    assert machine.find().stdout.strip() == oldest


def test_a_machine_without_any_is_told_what_to_do(machine):
    machine.add(machine.path / "python3", "3.10")
    result = machine.find()
    assert result.returncode == 2 and not result.stdout
    assert "no Python of 3.13 3.12 3.11" in result.stderr and "PYTHON=" in result.stderr


def test_version_can_be_asked_for(machine):
    machine.add(machine.path / "python3.13", "3.13")
    oldest = machine.add(machine.path / "python3.11", "3.11")
    assert machine.find("--version", "3.11").stdout.strip() == oldest
    assert machine.find("--version", "3.12").returncode == 2


@pytest.mark.parametrize(
    ("version", "message"),
    [("3.10", "is Python 3.10; electra-jax is tested on 3.13"), ("", "cannot make environments")],
)
def test_unusable_choice_is_refused(machine, version, message):
    chosen = machine.add(machine.path / "mine", version)
    result = machine.find(chosen)
    assert result.returncode == 2
    assert message in result.stderr and chosen in result.stderr
