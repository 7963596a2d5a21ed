"""docs/objectives.md, followed to the letter, beside an installed package."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import FAST

import electra_jax
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer

ROOT = Path(electra_jax.__file__).parent.parent
ONE_DEVICE = {"XLA_FLAGS": FAST}
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
    texts_of_files = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    names = re.findall(r"here `(\w+\.py)`|uses it, `(\w+\.py)`", guide.read_text())
    for name, text in zip(map("".join, names), texts_of_files, strict=True):
        (tmp_path / name).write_text(text)
    [command] = re.findall(r"    electra-jax (pretrain.*?STORE)\n", guide.read_text(), re.DOTALL)
    texts = [f"the cat sees the dog number {i} and the bird ." for i in range(400)]
    tokenizer = train_tokenizer(texts, "wordpiece", 100)
    store = tmp_path / "store"
    prepare(texts, tokenizer, store, workers=1, validation_share=0.1, progress=False)
    done = subprocess.run(
        [
            # -P: as with the installed command, the current directory is not on Python's path.
            sys.executable, "-P", "-m", "electra_jax",
            *shlex.split(command.replace("\\\n", " ").replace("STORE", str(store))),
            *(f"--config.{field}" for field in FIELDS),
        ],
        cwd=tmp_path, env={**os.environ, **ONE_DEVICE, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "runs" / "weighted" / "config.json").read_text()
    assert '"name": "weighted_electra"' in written
