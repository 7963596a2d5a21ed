"""docs/tasks.md and docs/finetuning.md do what they say."""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import FAST

import electra_jax
from electra_jax.cli import main

ROOT = Path(electra_jax.__file__).parent.parent
FEW = [
    "train.epochs=1", "train.length=64", "train.batch_size=8", "train.eval_batch_size=8",
]  # fmt: skip


def guide(name):
    path = ROOT / "docs" / name
    if not path.exists():
        pytest.skip("the documentation is not beside the installed package")
    return path.read_text()


@pytest.mark.slow
def test_the_guide_to_tasks_adds_one(encoder_dir, tmp_path):
    """One file and one config, beside an installed package."""
    text = guide("tasks.md").replace("\\\n", " ")
    names = re.findall(r"here `(\w+\.py)`|a config, `(\w+\.py)`", text)
    files = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, content in zip(map("".join, names), files, strict=True):
        (tmp_path / name).write_text(content)
    [command] = re.findall(r"    electra-jax (finetune.*?)\n    electra-jax", text, re.DOTALL)
    rows = "".join(f"{'Bal ' * (i % 4)}dol {i}\n" for i in range(40))
    (tmp_path / "train.csv").write_text("text\n" + rows)
    done = subprocess.run(
        [
            # -P: as with the installed command, the current directory is not on Python's path.
            sys.executable, "-P", "-m", "electra_jax",
            *shlex.split(command.replace("MODEL", str(encoder_dir))),
            "--config.task.validation_share=0.5", *(f"--config.{field}" for field in FEW),
        ],
        cwd=tmp_path, env={**os.environ, "XLA_FLAGS": FAST, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "capitals"
    assert '"name": "capitals"' in (run / "config.json").read_text()


@pytest.mark.full
def test_the_guide_to_fine_tuning_runs(encoder_dir, electra_data, tmp_path, monkeypatch):
    """All commands, in order, on the real sets, for a few rows."""
    monkeypatch.chdir(tmp_path)
    text = guide("finetuning.md").replace("\\\n", " ")
    starts = ("    electra-jax", "    echo")
    commands = [line[4:] for line in text.splitlines() if line.startswith(starts)]
    assert len(commands) > 14
    for command in commands:
        if " | " in command:
            said, _, command = command.partition(" | ")
            words = io.BytesIO(shlex.split(said)[1].encode())
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(words))
        line = command.replace("MODEL", str(encoder_dir))
        flags = shlex.split(line.replace("DATA", str(electra_data / "eval")))[1:]
        if flags[0] in ("finetune", "glue"):
            fields = [*FEW, "task.train_rows=32", *(["task.candidates=5"] * ("rerank" in line))]
            flags += [f"--config.{field}" for field in fields]
        assert main(flags) == 0, command
