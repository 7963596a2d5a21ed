"""The commands as functions, from text to an export, as a notebook has them."""

import json

import pytest
from tiny_run import TINY

import electra_jax as ej
from electra_jax.inference.finetuned import FinetunedModel
from electra_jax.inference.pretrained import PretrainedModel

WORDS = ["cat", "dog", "bird", "fish", "cow", "sees", "likes", "hears"]


@pytest.fixture
def text(tmp_path):
    lines = [f"the {WORDS[i % 5]} {WORDS[5 + i % 3]} the {WORDS[i * 3 % 5]}." for i in range(200)]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    return f"lines:{tmp_path / 'text.txt'}"


def test_a_tokenizer_is_never_overwritten_by_another(text, tmp_path):
    made = ej.train_tokenizer(text, tmp_path / "tokenizer", vocab_size=100)
    before = (tmp_path / "tokenizer" / "vocab.txt").read_text()
    again = ej.train_tokenizer(text, tmp_path / "tokenizer", vocab_size=100)
    assert again.identity == made.identity
    with pytest.raises(ej.UsageError, match="holds another tokenizer"):
        ej.train_tokenizer(text, tmp_path / "tokenizer", vocab_size=100, lower_case=False)
    assert (tmp_path / "tokenizer" / "vocab.txt").read_text() == before


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_from_text_to_an_export(text, tmp_path):
    ej.train_tokenizer(text, tmp_path / "tokenizer", vocab_size=100)
    store = ej.prepare(text, tmp_path / "tokenizer", tmp_path / "store", validation_share=0.2)
    assert store.manifest["splits"]["train"]["documents"] > 100
    lines = []
    fields = {"data.store": tmp_path / "store", **dict(x.split("=") for x in TINY)}
    metrics = ej.pretrain("pretrain/tiny", tmp_path / "run", fields, lambda *x: lines.append(x))
    assert metrics == {
        name: value for name, value in ej.evaluate(tmp_path / "run").items() if name != "step"
    }
    assert [step for step, values in lines if "train/loss" in values] == [5, 10, 15, 20]
    model = ej.load(tmp_path / "run")
    assert isinstance(model, PretrainedModel) and len(repr(model)) < 120
    rows = [{"text": f"the {WORDS[i % 2]} sees {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    results = ej.finetune(
        "finetune/classification", tmp_path / "tuned",
        {"init.from": tmp_path / "run", "task.train": tmp_path / "rows.jsonl", "train.epochs": 1,
         "train.length": 16, "optimizer.bias_correction": True},
        lambda *x: lines.append(x),
    )  # fmt: skip
    assert "accuracy" in results["metrics"] and "eval/accuracy" in lines[-1][1]
    tuned = ej.load(tmp_path / "tuned")
    assert isinstance(tuned, FinetunedModel) and len(repr(tuned)) < 120
    assert len(tuned.predict(["the cat sees"])) == 1
    ej.export(tmp_path / "tuned", tmp_path / "exported")
    # Modules of these names would hide them.
    assert all(callable(getattr(ej, name)) for name in ej.FUNCTIONS)
