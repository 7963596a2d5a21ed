"""docs/objectives.md, followed to the letter: one file and one config add an objective."""

import re
import sys
from pathlib import Path

import pytest
from tiny_run import one_device

import electra_jax
from electra_jax import cli, objectives
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
    guide = ROOT / "docs" / "objectives.md"
    if not guide.exists():
        pytest.skip("the documentation is not beside the installed package")
    module, config = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    [name] = re.findall(r"`electra_jax/objectives/(\w+)\.py`", guide.read_text())
    # The package has one folder more, as if the file were in its own.
    (tmp_path / "objectives").mkdir()
    (tmp_path / "objectives" / f"{name}.py").write_text(module)
    folders = [*objectives.__path__, str(tmp_path / "objectives")]
    monkeypatch.setattr(objectives, "__path__", folders)
    (tmp_path / "mine.py").write_text(config)
    texts = [f"the cat sees the dog number {i} and the bird ." for i in range(400)]
    tokenizer = train_tokenizer(texts, "wordpiece", 100)
    store = tmp_path / "store"
    prepare(texts, tokenizer, store, workers=1, validation_share=0.1, progress=False)
    command = [
        "pretrain", "--config", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run"),
        f"--config.data.store={store}", *(f"--config.{field}" for field in FIELDS),
    ]  # fmt: skip
    objectives.objectives.cache_clear()
    try:
        with one_device():
            assert cli.main(command) == 0
    finally:
        objectives.objectives.cache_clear()
        sys.modules.pop(f"electra_jax.objectives.{name}", None)
        vars(objectives).pop(name, None)
    assert '"name": "weighted_electra"' in (tmp_path / "run" / "config.json").read_text()
