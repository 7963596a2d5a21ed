"""Export and import: the same bytes back, runs that start from other models, bad input."""

import dataclasses
import json
import shutil
import types
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from data.test_tokenizer_ids import with_bytes
from tiny_model import APART, MODERN, PUBLISHED, TOKENIZER, make_params, run_config

from electra_jax import cli, exchange
from electra_jax.config import FinetuneConfig, PretrainConfig, load_config, pretrain_config
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.errors import UsageError
from electra_jax.evaluation import evaluate
from electra_jax.exchange import export_model, import_model
from electra_jax.inference.finetuned import FinetunedModel
from electra_jax.inference.pretrained import PretrainedModel, load_pretrained
from electra_jax.interop import huggingface, names
from electra_jax.models.electra import (
    Electra,
    GeneratorConfig,
    generator_model,
    init_params,
    stack_params,
)
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.pretraining.warm_start import warm_start
from electra_jax.tasks import find_task


def write(folder, model, generator, params):
    """What an export writes."""
    small = generator_model(model, generator)
    for network, flat in names.split_networks(params).items():
        shape = small if network == "generator" else model
        huggingface.write_network(folder / network, network, flat, shape, TOKENIZER)
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
    assert load_pretrained(tmp_path / "run").config.generator.share == shapes[1].share


def test_a_scanned_model_is_exported_unrolled(tmp_path):
    model, generator = dataclasses.replace(PUBLISHED[0], scan=True), PUBLISHED[1]
    params = make_params(model, generator)
    rolled = PretrainedModel(
        PretrainConfig(model=model, generator=generator, data=DataConfig(length=16)),
        stack_params(Electra(model, generator), params), TOKENIZER, step=3,
    )  # fmt: skip
    fresh = make_params(*PUBLISHED, seed=1)
    config = PretrainConfig(model=PUBLISHED[0], generator=generator, data=DataConfig(length=16))
    started = warm_start(config, TOKENIZER, fresh, rolled)
    jax.tree.map(np.testing.assert_array_equal, started, params)


def test_a_bert_starts_the_discriminator(tmp_path):
    """A BERT of the same shape has an encoder and embeddings, and no more.

    The norms of old ones have TensorFlow's names.
    """
    model = dataclasses.replace(PUBLISHED[0], embedding=16)
    params = make_params(model, PUBLISHED[1])
    folder = write(tmp_path / "all", model, PUBLISHED[1], params) / "discriminator"
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    renamed = {}
    for name, x in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        name = name.replace("LayerNorm.bias", "LayerNorm.beta")
        if name.startswith("electra."):
            renamed[name.replace("electra.", "bert.")] = x
    safetensors.numpy.save_file(renamed, folder / "model.safetensors")
    edit(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])
    read = huggingface.read_model(folder)
    assert read.generator is None and set(read.params["discriminator"]) == {"encoder"}
    jax.tree.map(
        np.testing.assert_array_equal,
        read.params["discriminator"]["encoder"], params["discriminator"]["encoder"],
    )  # fmt: skip


BEFORE_5 = {"rope_parameters": None, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
LINEAR = {"full_attention": {"rope_type": "linear", "rope_theta": 160000.0, "factor": 2.0}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (BEFORE_5, ""),
        ({**BEFORE_5, "global_rope_theta": 10000.0}, "rope_theta for full_attention is not"),
        ({**BEFORE_5, "local_rope_theta": 160000.0}, "rope_theta for sliding_attention is not"),
        ({**BEFORE_5, "local_rope_theta": None}, "rope_theta for sliding_attention is not"),
        ({"rope_parameters": LINEAR}, "rope_type for full_attention is 'linear'"),
    ],
)
def test_other_angles_are_another_model(fields, message):
    config = huggingface.hugging_face_config(MODERN[0], "ModernBertModel", TOKENIZER)
    config = {**config, **fields}
    if message:
        with pytest.raises(UsageError, match=message):
            huggingface.model_config(config)
    else:
        assert huggingface.model_config(config).window(1) == MODERN[0].window(1)


@pytest.mark.parametrize("field", [{"classifier_bias": True}, {"classifier_activation": "relu"}])
def test_a_head_of_another_kind_is_refused(field, tmp_path):
    """Unless it is not read."""
    folder = write(tmp_path / "out", *MODERN, make_params(*MODERN)) / "discriminator"
    edit(folder / "config.json", **field)
    with pytest.raises(UsageError, match=f"its {next(iter(field))} is"):
        huggingface.read_model(folder)
    edit(folder / "config.json", architectures=["ModernBertModel"])
    assert set(huggingface.read_model(folder).params["discriminator"]) == {"encoder"}


@pytest.mark.parametrize("labels", [["O", "B-NAME"], ["replaced", "original"], None])
def test_a_tagger_is_no_detector(labels, tmp_path, caplog):
    folder = write(tmp_path / "out", *MODERN, make_params(*MODERN)) / "discriminator"
    assert "classifier" in huggingface.read_model(folder).params["discriminator"]
    assert not caplog.text
    id2label = labels and {str(index): label for index, label in enumerate(labels)}
    edit(folder / "config.json", id2label=id2label)
    with caplog.at_level("INFO", logger="electra_jax"):
        read = huggingface.read_model(folder)
    assert set(read.params["discriminator"]) == {"encoder"}
    assert "head        left out, as its labels are not original and replaced" in caplog.text


MASKED_LM = [
    (PUBLISHED[0], GeneratorConfig(kind="none"), "mlm"),
    (MODERN[0], GeneratorConfig(kind="none", width=1.0), "mlm"),
    (*PUBLISHED, "replace_mlm"),
]


@pytest.mark.parametrize(("model", "generator", "objective"), MASKED_LM)
def test_a_masked_language_model_keeps_its_head(model, generator, objective, tmp_path):
    params = make_params(model, generator, head="masked_lm")
    folder = write(tmp_path / "out", model, generator, params)
    read = load_pretrained(folder)
    assert read.config.objective.name == objective
    assert read.config.generator.kind == generator.kind
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    alone = load_pretrained(folder / "masked_lm")
    assert alone.config.objective.name == "mlm" and "bias" in alone.params["discriminator"]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "generator", "objective"), MASKED_LM)
def test_a_masked_language_model_comes_back(model, generator, objective, tmp_path):
    params = make_params(model, generator, head="masked_lm")
    write(tmp_path / "one", model, generator, params)
    assert import_model(tmp_path / "one", tmp_path / "run") == []
    for written in export_model(tmp_path / "run", tmp_path / "two"):
        folder = Path(written)
        one = (tmp_path / "one" / folder.name / "model.safetensors").read_bytes()
        assert (folder / "model.safetensors").read_bytes() == one
    assert (tmp_path / "two" / "masked_lm").is_dir()


def test_disentangled_embeddings_leave_as_each_network_reads_them():
    params = make_params(PUBLISHED[0], GeneratorConfig(width=0.5, share="disentangled"))
    networks = names.split_networks(params)
    word, delta = params["embeddings"]["word"], params["embedding_delta"]
    np.testing.assert_array_equal(networks["generator"]["embeddings/word"], word)
    np.testing.assert_array_equal(networks["discriminator"]["embeddings/word"], word + delta)


@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_of_a_model_that_copies_the_encoder_is_left(shapes, tmp_path, monkeypatch):
    params = make_params(*shapes, head="copying_lm")
    objective = ObjectiveConfig(name="all_tokens_mlm")
    model = PretrainedModel(run_config(*shapes, objective=objective), params, TOKENIZER, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    folder = tmp_path / "out"
    written = export_model(tmp_path, folder)
    assert written == [str(folder / "encoder"), str(folder / "generator")]
    read = huggingface.read_model(folder)
    expected = {"encoder": params["discriminator"]["encoder"]}
    jax.tree.map(np.testing.assert_array_equal, read.params["discriminator"], expected)
    assert read.generator == shapes[1] and not read.masked_lm


def test_a_card_has_figures_where_there_is_no_held_out_loss(tmp_path):
    lines = [{"step": 4, "eval/ndcg@10": 0.5, "eval/mrr": None}, {"step": 4, "train/loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert exchange._held_out(tmp_path, 4) == {"eval/ndcg@10": 0.5}


@pytest.mark.slow
def test_pretraining_goes_on_from_an_exported_model(exported, tmp_path, caplog):
    """With fresh heads where there are none, and a run directory that was imported."""
    texts = ["the cat eats the dog . the dogs eat ."] * 300
    store = tmp_path / "store"
    prepare(texts, TOKENIZER, store, workers=1, validation_share=0.2, progress=False)
    fields = [
        "model.layers=2", "model.hidden=16", "model.heads=2", "model.intermediate=32",
        "model.embedding=8", "model.max_positions=16", "generator.width=0.25", "data.length=16",
        "train.batch_size=8", "eval.batch_size=8", "train.steps=2", "optimizer.warmup_steps=1",
        f"data.store={store}", "optimizer.learning_rate=0.0",
    ]  # fmt: skip

    def config(*more):
        return pretrain_config(load_config("pretrain/small", [*fields, *more]).to_dict())

    shutil.rmtree(exported / "generator")
    with caplog.at_level("INFO", logger="electra_jax"):
        pretrain(config(f"init.from={exported}"), tmp_path / "run")
    assert "generator/encoder" in caplog.text
    started = jax.device_get(load_pretrained(tmp_path / "run").params)
    expected = huggingface.read_model(exported).params
    jax.tree.map(np.testing.assert_array_equal, started["discriminator"], expected["discriminator"])
    fresh = import_model(exported, tmp_path / "imported")
    assert fresh == ["generator"]
    export_model(tmp_path / "imported", tmp_path / "again")
    card = (tmp_path / "again" / "README.md").read_text()
    assert f"Imported with electra-jax from `{exported.name}`, and not trained since" in card
    assert "are random, to be trained before use: `generator/bias`, `generator/dense`" in card
    assert "Pretrained" not in card
    # What the imported state could not be read with is refused before it is tried.
    for field in ("model.layers=3", "optimizer.frozen=^generator"):
        with pytest.raises(UsageError, match=field.split("=")[0]):
            pretrain(config(field), tmp_path / "imported")
    pretrain(config(), tmp_path / "imported")
    assert load_pretrained(tmp_path / "imported", "last").step == 2
    export_model(tmp_path / "imported", tmp_path / "trained")
    assert "for 2 steps of 8 rows" in (tmp_path / "trained" / "README.md").read_text()


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


def damage_shard(folder):
    folder = folder / "discriminator"
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"electra.embeddings.LayerNorm.bias": "pytorch_model-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return "pytorch_model-00001.bin cannot be read: FileNotFoundError"


def damage_pickle(folder):
    folder = folder / "discriminator"
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("model/data.pkl", b"K\x01K\x02a.")  # appends to an integer
    return "pytorch_model.bin cannot be read: AttributeError"


def damage_config(folder):
    (folder / "discriminator" / "config.json").write_text("{")
    return "cannot be read"


def damage_layers(folder):
    edit(
        folder / "discriminator" / "config.json", num_hidden_layers=2**30
    )  # to be named one by one
    return "num_hidden_layers is 1073741824"


def damage_vocabulary_size(folder):
    edit(folder / "discriminator" / "config.json", vocab_size=2**31 - 1)
    return "have no room"


def damage_kinds(folder):
    edit(folder / "discriminator" / "config.json", architectures=3, hidden_size=[64])
    return "cannot be read|model.hidden"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_what_cannot_be_read_is_one_line_and_writes_nothing(damage, exported, tmp_path, capsys):
    expected = damage(exported)
    assert cli.main(["import", "--from", str(exported), "--to", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert any(part in error for part in expected.split("|")), error
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory, of which no more than is asked for has to be there."""
    model = PretrainedModel(run_config(*PUBLISHED), make_params(*PUBLISHED), TOKENIZER, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    return tmp_path


@pytest.mark.parametrize("results", [None, "{", "[]", '{"metrics": 3}', '{"metrics": {"f1": []}}'])
def test_a_fine_tuning_without_results_is_not_exported(results, tmp_path, monkeypatch):
    """One that was stopped after its first checkpoint has a model, and no results."""
    model = FinetunedModel(None, types.SimpleNamespace(exported_as="Model"), None, {}, step=1)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    if results:
        (tmp_path / "results.json").write_text(results)
    told = "cannot be read|it holds a list" if results else "let the run finish"
    with pytest.raises(UsageError, match=told):
        export_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_that_were_not_finite_are_left_out_of_the_card(run, tmp_path):
    line = {"step": 3, "seconds": 1.0, "eval/loss": None, "eval/auc": 0.75}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    export_model(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| eval/auc | 0.75 |" in card and "eval/loss" not in card


def test_a_fine_tuned_models_card_has_the_figures_that_are_there(tmp_path, monkeypatch):
    config = FinetuneConfig(find_task("retrieval").Config())
    task = find_task("retrieval")(config.task, TOKENIZER, {})
    params = make_params(*PUBLISHED)
    params = {"embeddings": params["embeddings"], **params["discriminator"]}
    model = FinetunedModel(config, task, PUBLISHED[0], params, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    (tmp_path / "results.json").write_text('{"metrics": {"mrr": 0.5, "recall": null}}')
    assert export_model(tmp_path, tmp_path / "out") == [str(tmp_path / "out")]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`ElectraModel`" in card and "| mrr | 0.5 |" in card and "recall" not in card


def test_a_card_has_the_figures_of_the_checkpoint_that_was_asked_for(tmp_path):
    results = {"step": 3, "metrics": {"mrr": 0.5}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    line = {"step": 5, "seconds": 1.0, "eval/loss": 2.0, "eval/mrr": 0.25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert exchange._metrics_at(tmp_path, 3) == {"mrr": 0.5}
    assert exchange._metrics_at(tmp_path, 5) == {"loss": 2.0, "mrr": 0.25}
    assert exchange._metrics_at(tmp_path, 4) == {}


def test_a_discriminator_alone_is_not_evaluated(exported, tmp_path):
    texts = [f"{number * 'the '}cat eats ." for number in range(1, 40)]
    prepare(texts, TOKENIZER, tmp_path / "store", workers=1, validation_share=0.5, progress=False)
    with pytest.raises(UsageError, match="discriminator lacks generator.*: it cannot be evaluated"):
        evaluate(exported / "discriminator", str(tmp_path / "store"))


def test_where_nothing_can_be_written_is_said(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="out cannot be written"):
        export_model(run, tmp_path / "file" / "out")


@pytest.mark.slow
def test_what_fails_while_it_is_written_leaves_nothing(exported, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WordPieceTokenizer, "save", full)
    (tmp_path / "empty").mkdir()
    for folder in ("new", "empty"):
        with pytest.raises(UsageError, match="cannot be written: .*No space left"):
            import_model(exported, tmp_path / folder)
    assert not (tmp_path / "new").exists() and not any((tmp_path / "empty").iterdir())


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


def test_earlier_versions_of_transformers_find_their_own_settings():
    """Before version 5 these said which layers are local, and the angles."""
    for model, every in ((MODERN[0], 2), (dataclasses.replace(MODERN[0], local_window=0), 1)):
        config = huggingface.hugging_face_config(model, "ModernBertModel", TOKENIZER)
        assert config["global_attn_every_n_layers"] == every
        assert (config["global_rope_theta"], config["local_rope_theta"]) == (160000.0, 10000.0)
        before = {k: v for k, v in config.items() if k not in ("layer_types", "rope_parameters")}
        for layer in range(model.layers):
            assert huggingface.model_config(before).window(layer) == model.window(layer)


def change(folder, new=(), **fields):
    """Adds tensors to a directory, or changes them, and settings."""
    file = folder / "model.safetensors"
    tensors = {**safetensors.numpy.load_file(file), **dict(new)}
    file.write_bytes(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    edit(folder / "config.json", **fields)
    return folder


@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_an_output_matrix_of_its_own_is_refused(shapes, tmp_path):
    folder = write(tmp_path / "out", *shapes, make_params(*shapes)) / "generator"
    shape = generator_model(*shapes)
    name = names.tied_output(shape)

    def read(new=(), **fields):
        return huggingface.read_model(change(folder, new, **fields))

    with pytest.raises(UsageError, match=r"output matrix .* is not that of its embeddings"):
        read(tie_word_embeddings=False)
    words = safetensors.numpy.load_file(folder / "model.safetensors")[
        next(n.theirs for n in names.body(shape) if n.ours == ("embeddings/word",))
    ]
    assert read({name: words}).masked_lm  # as some files have it
    with pytest.raises(UsageError, match=r"set architectures in config.json to \w+Model"):
        read({name: words + 1}, tie_word_embeddings=True)
    kind = huggingface.CLASSES[shape.architecture, "encoder"]
    assert not read(architectures=[kind]).masked_lm


@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_a_tensor_that_is_not_read_is_refused(shapes, tmp_path, caplog):
    folder = write(tmp_path / "out", *shapes, make_params(*shapes)) / "discriminator"
    prefix = {"published": "electra.", "modern": "model."}[shapes[0].architecture]
    some = np.zeros(4, np.float32)
    with caplog.at_level("INFO", logger="electra_jax"):
        change(folder, {"other_head.weight": some, f"{prefix}embeddings.position_ids": some})
        huggingface.read_model(folder)
    assert "left out: other_head.weight" in caplog.text and "position_ids" not in caplog.text
    for name in ("embeddings.extra.weight", "layers.9.new", "encoder.layer.0.crossattention.x"):
        copy = shutil.copytree(folder, tmp_path / name)
        with pytest.raises(UsageError, match=f"tensor {prefix}{name} is not read"):
            huggingface.read_model(change(copy, {prefix + name: some}))


@pytest.mark.slow
def test_a_model_with_byte_level_pieces_is_pretrained_on_and_exported(tmp_path):
    """As ModernBERT's are: import, a store, a run from it, an export with the same ids."""
    library = with_bytes(add_prefix_space=False)
    model = dataclasses.replace(MODERN[0], vocab_size=library.get_vocab_size() + 8)
    params = make_params(model, MODERN[1])
    flat = names.split_networks(params)["discriminator"]
    folder = tmp_path / "theirs"
    huggingface.write_network(folder, "discriminator", flat, model, TOKENIZER)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    library.save(str(folder / "tokenizer.json"))
    import_model(folder, tmp_path / "imported")
    texts = [f"The cats' number {n} café, isn't it? 東" for n in range(60)]
    tokenizer = load_pretrained(tmp_path / "imported").tokenizer
    assert tokenizer.encode(texts) == [
        library.encode(text, add_special_tokens=False).ids for text in texts
    ]
    store = tmp_path / "store"
    prepare(texts, tokenizer, store, workers=1, validation_share=0.2, progress=False)
    fields = [
        f"data.store={store}", f"init.from={folder}", "train.steps=2",
        "train.batch_size=8", "eval.batch_size=8", "data.length=16", "generator.depth=0.5",
        "optimizer.warmup_steps=1", "train.time_budget=",
        *(f"model.{name}={getattr(model, name)}" for name in (
            "layers", "hidden", "heads", "intermediate", "embedding", "max_positions",
            "vocab_size", "local_window", "global_every")),
    ]  # fmt: skip
    pretrain(pretrain_config(load_config("pretrain/tiny", fields).to_dict()), tmp_path / "run")
    export_model(tmp_path / "run", tmp_path / "exported")
    exported = tokenizers.Tokenizer.from_file(
        str(tmp_path / "exported" / "discriminator" / "tokenizer.json")
    )
    for text in texts[:5]:
        assert exported.encode(text, add_special_tokens=False).ids == library.encode(text).ids
    assert load_pretrained(tmp_path / "exported").tokenizer.identity == tokenizer.identity
