"""Export and import: the same bytes back, runs that start from other models, bad input."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from electra_jax import cli
from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.errors import UsageError
from electra_jax.exchange import export_model, import_model
from electra_jax.inference import Model, load
from electra_jax.interop import huggingface, names
from electra_jax.models.electra import (
    Electra,
    GeneratorConfig,
    generator_model,
    init_params,
    roll,
)
from electra_jax.models.encoder import ModelConfig
from electra_jax.pretrain import pretrain
from electra_jax.warm_start import change_vocabulary, warm_start

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "##s", "eat", "."]
TOKENIZER = WordPieceTokenizer(PIECES)
SHAPE = {"vocab_size": len(PIECES), "layers": 2, "hidden": 16, "heads": 2, "intermediate": 32,
         "max_positions": 16}  # fmt: skip
PUBLISHED = (ModelConfig(embedding=8, **SHAPE), GeneratorConfig(width=0.5))
MODERN = (
    ModelConfig(architecture="modern", embedding=16, local_window=3, global_every=2, **SHAPE),
    GeneratorConfig(width=1.0, depth=0.5),
)
APART = (PUBLISHED[0], GeneratorConfig(width=0.5, share="nothing"))


def make_params(model, generator, seed=0):
    electra = Electra(dataclasses.replace(model, scan=False), generator)
    shapes = jax.eval_shape(lambda key: init_params(electra, key), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def write(folder, model, generator, params):
    """What an export writes."""
    shapes = {"discriminator": model, "generator": generator_model(model, generator)}
    for network, flat in names.split_networks(params).items():
        huggingface.write_network(folder / network, network, flat, shapes[network], TOKENIZER)
    return folder


@pytest.fixture
def exported(tmp_path):
    return write(tmp_path / "exported", *PUBLISHED, make_params(*PUBLISHED))


def edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN, APART], ids=["published", "modern", "apart"])
def test_import_and_export_give_the_same_bytes(shapes, tmp_path):
    write(tmp_path / "one", *shapes, make_params(*shapes))
    assert import_model(tmp_path / "one", tmp_path / "run") == []
    export_model(tmp_path / "run", tmp_path / "two")
    for network in ("discriminator", "generator"):
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            one, two = (tmp_path / name / network / file for name in ("one", "two"))
            assert one.read_bytes() == two.read_bytes(), file
    assert load(tmp_path / "run").config.generator.share == shapes[1].share


def test_a_scanned_model_is_exported_unrolled(tmp_path):
    model, generator = dataclasses.replace(PUBLISHED[0], scan=True), PUBLISHED[1]
    params = make_params(model, generator)
    rolled = Model(
        PretrainConfig(model=model, generator=generator, data=DataConfig(length=16)),
        roll(Electra(model, generator), params), TOKENIZER, step=3,
    )  # fmt: skip
    fresh = make_params(*PUBLISHED, seed=1)
    config = PretrainConfig(model=PUBLISHED[0], generator=generator, data=DataConfig(length=16))
    started = warm_start(config, TOKENIZER, fresh, rolled)
    jax.tree.map(np.testing.assert_array_equal, started, params)


def test_a_bert_starts_the_discriminator(tmp_path):
    """A BERT of the same shape has an encoder and embeddings, and no more."""
    model = dataclasses.replace(PUBLISHED[0], embedding=16)
    params = make_params(model, PUBLISHED[1])
    folder = write(tmp_path / "all", model, PUBLISHED[1], params) / "discriminator"
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    renamed = {
        name.replace("electra.", "bert."): x
        for name, x in tensors.items()
        if name.startswith("electra.")
    }
    safetensors.numpy.save_file(renamed, folder / "model.safetensors")
    edit(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])
    read = huggingface.read_model(folder)
    assert read.generator is None and set(read.params["discriminator"]) == {"encoder"}
    jax.tree.map(
        np.testing.assert_array_equal,
        read.params["discriminator"]["encoder"], params["discriminator"]["encoder"],
    )  # fmt: skip


def test_a_new_vocabulary_keeps_shared_rows_and_averages_new_ones():
    model, generator = PUBLISHED
    params = make_params(*PUBLISHED)
    source = Model(
        PretrainConfig(model=model, generator=generator, data=DataConfig(length=16)),
        params, TOKENIZER, step=0,
    )  # fmt: skip
    tokenizer = WordPieceTokenizer([*PIECES[:5], "dogs", "cat", "zebra"])
    shape = dataclasses.replace(model, vocab_size=8, max_positions=40)
    config = PretrainConfig(model=shape, generator=generator, data=DataConfig(length=32))
    started = warm_start(config, tokenizer, make_params(shape, generator, seed=1), source)
    old, new = params["embeddings"]["word"], started["embeddings"]["word"]
    np.testing.assert_array_equal(new[6], old[6])
    np.testing.assert_allclose(new[5], (old[7] + old[8]) / 2, rtol=1e-6)  # dog ##s
    np.testing.assert_array_equal(new[7], old[1])  # [UNK]
    np.testing.assert_array_equal(started["generator"]["bias"][6], params["generator"]["bias"][6])
    positions = started["embeddings"]["position"]
    np.testing.assert_array_equal(positions[:16], params["embeddings"]["position"])
    np.testing.assert_array_equal(positions[16:32], params["embeddings"]["position"])


def test_a_new_vocabulary_changes_every_array_with_a_row_for_each_piece():
    """A masked language model has its output bias in the main network."""
    tokenizer = WordPieceTokenizer([*PIECES[:5], "dogs", "cat", "zebra"])
    rows = np.arange(len(PIECES), dtype=np.float32)
    for path in ("discriminator/bias", "generator/bias", "embedding_delta"):
        changed = change_vocabulary({path: rows, "other": rows}, TOKENIZER, tokenizer)
        np.testing.assert_array_equal(changed[path][5:], [7.5, 6, 1])
        assert changed["other"] is rows


@pytest.mark.slow
def test_pretraining_goes_on_from_an_exported_model(exported, tmp_path, caplog):
    """With fresh heads where there are none, and a run directory that was imported."""
    texts = ["the cat eats the dog . the dogs eat ."] * 300
    store = tmp_path / "store"
    prepare(texts, TOKENIZER, store, workers=1, validation_share=0.2, progress=False)
    fields = [
        "model.layers=2", "model.hidden=16", "model.heads=2", "model.intermediate=32",
        "model.embedding=8", "model.max_positions=16", "generator.width=0.5", "data.length=16",
        "train.batch_size=8", "eval.batch_size=8", "train.steps=2", "optimizer.warmup_steps=1",
        f"data.store={store}",
    ]  # fmt: skip

    def config(*more):
        return pretrain_config(load_config("pretrain/small", [*fields, *more]).to_dict())

    shutil.rmtree(exported / "generator")
    frozen = ["optimizer.learning_rate=0.0", f"init.from={exported}"]
    with caplog.at_level("INFO", logger="electra_jax"):
        pretrain(config(*frozen), tmp_path / "run")
    assert "generator/encoder" in caplog.text
    started = jax.device_get(load(tmp_path / "run").params)
    expected = huggingface.read_model(exported).params
    jax.tree.map(np.testing.assert_array_equal, started["discriminator"], expected["discriminator"])
    fresh = import_model(exported, tmp_path / "imported")
    assert fresh == ["generator"]
    # What the imported state could not be read with is refused before it is tried.
    for field in ("model.layers=3", "optimizer.frozen=^generator"):
        with pytest.raises(UsageError, match=field.split("=")[0]):
            pretrain(config("generator.width=0.25", field), tmp_path / "imported")
    pretrain(config("generator.width=0.25"), tmp_path / "imported")
    assert load(tmp_path / "imported", "last").step == 2


def damage_truncated(folder):
    file = folder / "discriminator" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return "truncated"


def damage_missing(folder):
    file = folder / "discriminator" / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors.pop("electra.encoder.layer.1.output.dense.bias")
    safetensors.numpy.save_file(tensors, file)
    return "electra.encoder.layer.1.output.dense.bias is missing"


def damage_architecture(folder):
    edit(folder / "discriminator" / "config.json", model_type="gpt2")
    return "'gpt2'"


def damage_vocabulary(folder):
    edit(folder / "discriminator" / "config.json", vocab_size=7)
    return "11 pieces|shape"


def damage_activation(folder):
    edit(folder / "discriminator" / "config.json", hidden_act="relu")
    return "hidden_act is 'relu'"


def damage_generator(folder):
    edit(folder / "generator" / "config.json", num_attention_heads=2)
    return "generator's heads is 2"


def damage_weights(folder):
    (folder / "discriminator" / "model.safetensors").unlink()
    return "neither model.safetensors nor pytorch_model.bin"


def damage_config(folder):
    (folder / "discriminator" / "config.json").write_text("{")
    return "cannot be read"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_what_cannot_be_read_is_one_line_and_writes_nothing(damage, exported, tmp_path, capsys):
    expected = damage(exported)
    assert cli.main(["import", "--from", str(exported), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert any(part in error for part in expected.split("|")), error
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_over(exported, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    for function in (import_model, export_model):
        with pytest.raises(UsageError, match="not empty"):
            function(exported, tmp_path / "there")


@pytest.mark.full
@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_transformers_opens_both_networks(shapes, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    folder = write(tmp_path / "out", *shapes, make_params(*shapes))
    for network in ("discriminator", "generator"):
        kind = getattr(transformers, huggingface.CLASSES[shapes[0].architecture, network])
        _, info = kind.from_pretrained(folder / network, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        _, info = transformers.AutoModel.from_pretrained(folder / network, output_loading_info=True)
        assert not info["missing_keys"]
        heads = ("discriminator_predictions", "generator_", "head.", "classifier", "decoder")
        assert all(key.startswith(heads) for key in info["unexpected_keys"])
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / network)
        assert tokenizer("the cats eat.")["input_ids"] == [2, 5, 6, 8, 9, 10, 3]


@pytest.mark.full
@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_an_exported_model_is_fine_tuned_in_pytorch(shapes, tmp_path):
    """Fifty steps of plain PyTorch: does the sentence speak of a cat or of a dog?"""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    electra = Electra(*shapes)
    params = jax.device_get(jax.jit(lambda key: init_params(electra, key))(jax.random.key(0)))
    folder = write(tmp_path / "out", *shapes, params) / "discriminator"
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["the cats eat .", "the dogs eat .", "eat the cat", "eat the dog"],
                      padding=True, return_tensors="pt")  # fmt: skip
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
