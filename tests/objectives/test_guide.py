"""docs/objectives.md, followed to the letter: one file and one config add an objective."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import electra_jax
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer

ROOT = Path(electra_jax.__file__).parent.parent
FIELDS = [
    "model.layers=1", "model.hidden=16", "model.heads=2", "model.intermediate=32",
    "model.embedding=16", "data.length=32", "train.batch_size=8", "eval.batch_size=8",
    "train.time_budget=", "train.steps=2",
]  # fmt: skip


@pytest.mark.slow
def test_the_guide_adds_an_objective(tmp_path):
    guide = ROOT / "docs" / "objectives.md"
    if not guide.exists():
        pytest.skip("the documentation is not beside the installed package")
    module, config = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    [name] = re.findall(r"`electra_jax/objectives/(\w+\.py)`", guide.read_text())
    copy = tmp_path / "checkout"
    for folder in ("electra_jax", "configs"):
        shutil.copytree(ROOT / folder, copy / folder)
    (copy / "electra_jax" / "objectives" / name).write_text(module)
    (tmp_path / "mine.py").write_text(config)
    texts = [f"the cat sees the dog number {i} and the bird ." for i in range(400)]
    tokenizer = train_tokenizer(texts, "wordpiece", 100)
    store = tmp_path / "store"
    prepare(texts, tokenizer, store, workers=1, validation_share=0.1, progress=False)
    done = subprocess.run(
        [
            sys.executable, "-m", "electra_jax", "pretrain", "--config", str(tmp_path / "mine.py"),
            "--workdir", str(tmp_path / "run"), f"--config.data.store={store}",
            *(f"--config.{field}" for field in FIELDS),
        ],
        cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"name": "weighted_electra"' in (tmp_path / "run" / "config.json").read_text()
