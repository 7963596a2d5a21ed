"""Fine-tuned models give the same answers in the transformers library."""

import json

import numpy as np
import pytest
from finetuning import test_learning
from tiny_encoder import TOKENIZER, make_model

from electra_jax import exchange
from electra_jax.config import FinetuneConfig
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError
from electra_jax.exchange import export_model
from electra_jax.finetuning.finetune import finetune
from electra_jax.inference.encoder import embed
from electra_jax.inference.finetuned import FinetunedModel, load
from electra_jax.tasks import find_task

FEW = ["train.epochs=2", "checkpoint.every_steps=10000"]


@pytest.fixture(scope="module", params=["published", "modern"])
def encoder(request, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp(request.param), request.param)


def tuned(name, encoder, tmp_path, *more):
    """A model fine-tuned for two epochs, its export, and some of its records."""
    make, overrides = test_learning.CASES[name]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(x) + "\n" for x in make(np.random.default_rng(0))))
    config = test_learning.config_of(name, data, encoder, *overrides, *FEW, *more)
    finetune(config, tmp_path / "run")
    model = load(tmp_path / "run")
    if model.task.exported_as:
        export_model(tmp_path / "run", tmp_path / "out")
    return model, tmp_path / "out", model.task.read(str(data))[:8]


def opened(folder):
    """The exported model in the class it names, and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    config = json.loads((folder / "config.json").read_text())
    [name] = config["architectures"]
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def run(model, inputs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.full
@pytest.mark.parametrize("name", ["classify", "classify:regression"])
def test_classes_and_numbers(name, encoder, tmp_path):
    model, folder, records = tuned(name, encoder, tmp_path)
    theirs, tokenizer = opened(folder)
    pairs = [r.text_b for r in records] if records[0].text_b else None
    inputs = tokenizer([r.text for r in records], pairs, padding=True, return_tensors="pt")
    logits = run(theirs, inputs).logits.numpy()
    for answer, row in zip(model.answer(records), logits, strict=True):
        if name == "classify":
            assert theirs.config.id2label[int(row.argmax())] == answer["label"]
            share = np.exp(row.max()) / np.exp(row).sum()
            assert answer["score"] == pytest.approx(float(share), abs=1e-4)
        else:
            assert answer["score"] / 5 == pytest.approx(float(row[0]), abs=1e-4)


@pytest.mark.full
def test_tags(encoder, tmp_path):
    model, folder, records = tuned("tag", encoder, tmp_path)
    theirs, tokenizer = opened(folder)
    for record, answer in zip(records, model.answer(records), strict=True):
        inputs = tokenizer(record.words, is_split_into_words=True, return_tensors="pt")
        best = run(theirs, inputs).logits[0].argmax(-1).numpy()
        words = inputs.word_ids()
        firsts = [i for i, w in enumerate(words) if w is not None and w != words[i - 1]]
        assert [theirs.config.id2label[int(best[i])] for i in firsts] == answer["labels"]


@pytest.mark.full
def test_answers(encoder, tmp_path):
    model, folder, records = tuned("answer", encoder, tmp_path)
    theirs, tokenizer = opened(folder)
    for record, answer in zip(records, model.answer(records), strict=True):
        inputs = tokenizer(
            record.question, record.context, return_tensors="pt", return_offsets_mapping=True
        )
        offsets = inputs.pop("offset_mapping")[0].numpy()
        output = run(theirs, inputs)
        start, end = output.start_logits[0].numpy(), output.end_logits[0].numpy()
        inside = [i for i, part in enumerate(inputs.sequence_ids()) if part == 1]
        scores = {(i, j): start[i] + end[j] for i in inside for j in inside if i <= j < i + 30}
        i, j = max(scores, key=scores.get)
        assert record.context[offsets[i, 0] : offsets[j, 1]] == answer["span"]
        margin = start[0] + end[0] - scores[i, j]
        assert answer["no_answer_margin"] == pytest.approx(float(margin), abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_scores_of_documents(pooling, encoder, tmp_path):
    if pooling == "mean" and "modern" not in encoder.name:
        pytest.skip("the published classes know [CLS] alone")
    model, folder, _ = tuned("retrieve:rerank", encoder, tmp_path, f"task.pooling={pooling}")
    theirs, tokenizer = opened(folder)
    rows = [Row(str(i), {"query": "bad", "positive": text}) for i, text in enumerate("abc")]
    for row in rows:
        record = model.task.parse(row, False)
        [answer] = model.answer([record])
        inputs = tokenizer("bad", row.fields["positive"], return_tensors="pt")
        score = float(run(theirs, inputs).logits[0, 0])
        assert answer["ranking"][0][1] == pytest.approx(score, abs=1e-4)


@pytest.mark.full
def test_choices(encoder, tmp_path):
    model, folder, records = tuned("choose", encoder, tmp_path)
    theirs, tokenizer = opened(folder)
    for record, answer in zip(records, model.answer(records), strict=True):
        texts = [record.text] * len(record.options)
        inputs = tokenizer(texts, record.options, padding=True, return_tensors="pt")
        logits = run(theirs, {k: v[None] for k, v in inputs.items()}).logits[0].numpy()
        shares = np.exp(logits - logits.max())
        np.testing.assert_allclose(answer["scores"], shares / shares.sum(), atol=1e-4)


@pytest.mark.full
def test_vectors(encoder, tmp_path):
    model, folder, records = tuned("retrieve", encoder, tmp_path)
    theirs, tokenizer = opened(folder)
    texts = [record.text for record in records]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    hidden = run(theirs, inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy()[..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    np.testing.assert_allclose(embed(model.encoder, texts, 32), mean, atol=1e-4)


def test_what_transformers_has_no_class_for_is_refused(tmp_path, monkeypatch):
    task = find_task("intent_slots")
    task = task(task.Config(), TOKENIZER)
    assert not task.exported_as
    model = FinetunedModel(FinetuneConfig(task.config), task, None, {}, step=1)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    with pytest.raises(UsageError, match="no class for the task intent_slots"):
        export_model(tmp_path / "run", tmp_path / "other")
