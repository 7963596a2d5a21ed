"""docs/objectives.md, followed to the letter: the guide's two files beside an installed package."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from tiny_run import one_device

import electra_jax
from electra_jax import cli
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer

ROOT = Path(electra_jax.__file__).parent.parent
FIELDS = [
    "model.layers=1", "model.hidden=16", "model.heads=2", "model.intermediate=32",
    "model.embedding=16", "data.length=32", "train.batch_size=8", "eval.batch_size=8",
    "train.time_budget=", "train.steps=2",
]  # fmt: skip


@pytest.mark.slow
def test_the_guide_adds_an_objective(tmp_path, monkeypatch):
    """The files lie in the current directory, which is not on Python's path."""
    path = ROOT / "docs" / "objectives.md"
    if not path.exists():
        pytest.skip("the documentation is not beside the installed package")
    guide = path.read_text().replace("\\\n", " ")
    files = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names = re.findall(r"(?:here|uses it,) `(\w+\.py)`", guide)
    for name, text in zip(names, files, strict=True):
        (tmp_path / name).write_text(text)
    [command] = re.findall(r"    electra-jax (pretrain .*)\n", guide)
    texts = [f"the cat sees the dog number {i} and the bird ." for i in range(400)]
    tokenizer = train_tokenizer(texts, "wordpiece", 100)
    prepare(texts, tokenizer, tmp_path / "STORE", workers=1, validation_share=0.1, progress=False)
    monkeypatch.chdir(tmp_path)
    # --plugin adds the directory to the path.
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    flags = [*shlex.split(command), *(f"--config.{field}" for field in FIELDS)]
    try:
        with one_device():
            assert cli.main(flags) == 0
    finally:
        sys.modules.pop(names[0].removesuffix(".py"), None)
    written = Path("runs", "weighted", "config.json").read_text()
    assert '"name": "weighted_electra"' in written
