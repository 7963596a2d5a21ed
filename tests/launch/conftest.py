"""Stand-ins for gcloud, kubectl, sbatch and the like, which note how they were called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!{python} -ISE
import json, re, sys
from pathlib import Path

folder = Path(__file__).parent
words = [Path(sys.argv[0]).name, *sys.argv[1:]]
given = sys.stdin.read() if "--filename=-" in words else ""
with open(folder / "calls.jsonl", "a") as file:
    file.write(json.dumps([words, given]) + "\\n")
answers = json.loads((folder / "answers.json").read_text())
for answer in answers:
    if answer["times"] and re.search(answer["pattern"], " ".join(words)):
        answer["times"] -= 1
        (folder / "answers.json").write_text(json.dumps(answers))
        sys.stdout.write(answer["output"])
        sys.stderr.write(answer["error"])
        sys.exit(answer["status"])
"""


class Commands:
    """Stand-ins in a folder that is first on the PATH."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        (folder / "answers.json").write_text("[]")

    def stand_in(self, *names: str, script: str | None = None) -> None:
        for name in names:
            file = self.folder / name
            file.write_text(script or STAND_IN.format(python=sys.executable))
            file.chmod(0o755)

    def answer(self, pattern: str, *outputs: str, status=0, error="", times=1) -> None:
        """What calls that match answer, one output after the other, each `times` times.

        Of several answers that match, the first that is not used up is given.
        """
        answers = json.loads((self.folder / "answers.json").read_text())
        for output in outputs or [""]:
            output += "\n" if output else ""
            answers.append(
                dict(pattern=pattern, output=output, status=status, error=error, times=times)
            )
        (self.folder / "answers.json").write_text(json.dumps(answers))

    def records(self) -> list:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def calls(self, *words: str) -> list[list[str]]:
        """Calls, as lists of words, that hold all of `words`."""
        return [call for call, _ in self.records() if set(words) <= set(call)]

    def forget(self) -> None:
        (self.folder / "calls.jsonl").unlink(missing_ok=True)


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
