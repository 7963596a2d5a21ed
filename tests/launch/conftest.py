"""Stand-ins for gcloud, kubectl, sbatch and the like, which note how they were called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Notes its words and its input, and gives the first answer that is not used up. In bash, since
# Python takes ten times as long to start and the tests call some hundred of them.
STAND_IN = r"""#!/usr/bin/env bash
folder=${0%/*}
name=${0##*/}
given=''
[[ " $* " != *" --filename=-"* ]] || given=$(cat)
printf '%s\0' "$#" "$name" "$@" "$given" >>"$folder/calls"
for answer in "$folder"/answers/*; do
  { read -r times status && read -r pattern && IFS= read -rd '' text; } <"$answer"
  if ((times)) && [[ "$name $*" =~ $pattern ]]; then
    printf '%s %s\n%s\n%s' $((times - 1)) "$status" "$pattern" "$text" >"$answer"
    if ((status)); then printf '%s' "$text" >&2; else printf '%s' "$text"; fi
    exit "$status"
  fi
done
"""


class Commands:
    """Stand-ins in a folder that is first on the PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "answers").mkdir(parents=True)

    def stand_in(self, *names: str, script: str = STAND_IN) -> None:
        for name in names:
            file = self.folder / name
            file.write_text(script)
            file.chmod(0o755)

    def answer(self, pattern: str, *outputs: str, status=0, error="", times=1) -> None:
        """What calls that match answer, one output after the other, each `times` times.

        Of several answers that match, the first that is not used up is given; an error is
        written where the status is not 0.
        """
        for text in outputs or [error]:
            number = len(list((self.folder / "answers").iterdir()))
            text += "\n" if text else ""
            file = self.folder / "answers" / f"{number:04}"
            file.write_text(f"{times} {status}\n{pattern}\n{text}")

    def forget_answers(self) -> None:
        for file in (self.folder / "answers").iterdir():
            file.unlink()

    def records(self) -> list[tuple[list[str], str]]:
        """(words, input) of all calls."""
        file = self.folder / "calls"
        fields = iter(file.read_text().split("\0")[:-1] if file.exists() else [])
        return [([next(fields) for _ in range(int(count) + 1)], next(fields)) for count in fields]

    def calls(self, *words: str) -> list[list[str]]:
        """Calls, as lists of words, that hold all of `words`."""
        return [call for call, _ in self.records() if set(words) <= set(call)]

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path / "commands")


@pytest.fixture
def checkout(tmp_path):
    """The files that the scripts read, so that nothing is written into this checkout."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", copy / "launch")
    (copy / "electra_jax").mkdir()
    shutil.copy(ROOT / "electra_jax" / "__init__.py", copy / "electra_jax")
    shutil.copy(ROOT / "requirements.txt", copy)
    return copy


@pytest.fixture
def environment(tmp_path, commands):
    home = tmp_path / "home"
    home.mkdir()
    path = f"{commands.folder}:{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "USER") if name in os.environ}
    return {**kept, "PATH": path, "HOME": str(home)}


@pytest.fixture
def launch(checkout, environment, tmp_path):
    """Runs a script of launch/."""

    def run(script: str, *words, **more) -> subprocess.CompletedProcess:
        return subprocess.run(
            [checkout / "launch" / script, *map(str, words)],
            env={**environment, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run
