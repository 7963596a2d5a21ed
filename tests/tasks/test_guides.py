"""docs/tasks.md and docs/finetuning.md do what they say."""

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    """One file and one config, in a copy of the checkout."""
    task, config = re.findall(r"```python\n(.*?)```", guide("tasks.md"), re.DOTALL)
    copy = tmp_path / "checkout"
    for folder in ("electra_jax", "configs"):
        shutil.copytree(ROOT / folder, copy / folder)
    (copy / "electra_jax" / "tasks" / "capitals.py").write_text(task)
    (tmp_path / "capitals.py").write_text(config)
    rows = "".join(f"{'Bal ' * (i % 4)}dol {i}\n" for i in range(40))
    (tmp_path / "train.csv").write_text("text\n" + rows)
    done = subprocess.run(
        [
            sys.executable, "-m", "electra_jax", "finetune", "--config",
            str(tmp_path / "capitals.py"), "--workdir", str(tmp_path / "run"),
            f"--config.init.from={encoder_dir}", f"--config.task.train={tmp_path}/train.csv",
            "--config.task.validation_share=0.5", *(f"--config.{field}" for field in FEW),
        ],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"name": "capitals"' in (tmp_path / "run" / "config.json").read_text()


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
