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

from electra_jax import cli, exchange
from electra_jax.config import (
    FinetuneConfig,
    PretrainConfig,
    find_task,
    load_config,
    pretrain_config,
    save_config,
)
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer import WordPieceTokenizer, load_tokenizer
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
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.prediction import TaskModel
from electra_jax.pretrain import IMPORTED, pretrain
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.loop import TrainConfig
from electra_jax.training.optimizer import OptimizerConfig
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


def make_params(model, generator, seed=0, head="detector"):
    electra = Electra(dataclasses.replace(model, scan=False), generator, head)
    shapes = jax.eval_shape(lambda key: init_params(electra, key), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


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
    read = load(folder)
    assert read.config.objective.name == objective
    assert read.config.generator.kind == generator.kind
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    alone = load(folder / "masked_lm")
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


@pytest.mark.parametrize("shapes", [PUBLISHED, MODERN], ids=["published", "modern"])
def test_of_a_model_that_copies_the_encoder_is_left(shapes, tmp_path, monkeypatch):
    params = make_params(*shapes, head="copying_lm")
    objective = ObjectiveConfig(name="all_tokens_mlm")
    model = Model(run_config(*shapes, objective=objective), params, TOKENIZER, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    folder = tmp_path / "out"
    written = export_model(tmp_path, folder)
    assert written == [str(folder / "encoder"), str(folder / "generator")]
    read = huggingface.read_model(folder)
    expected = {"encoder": params["discriminator"]["encoder"]}
    jax.tree.map(np.testing.assert_array_equal, read.params["discriminator"], expected)
    assert read.generator == shapes[1] and not read.masked_lm


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


def test_a_new_continuation_starts_from_pieces_within_words():
    old = WordPieceTokenizer([*PIECES[:5], "in", "##in", "##g"])
    new = WordPieceTokenizer([*PIECES[:5], "ing", "##ing", "##zebra"])
    rows = np.arange(8, dtype=np.float32)
    changed = change_vocabulary({"embedding_delta": rows}, old, new)["embedding_delta"]
    np.testing.assert_array_equal(changed[5:], [(5 + 7) / 2, (6 + 7) / 2, 1])


def run_config(model, generator, **sections):
    return PretrainConfig(model=model, generator=generator, data=DataConfig(length=16), **sections)


def start(shapes, source_shapes):
    """Fresh parameters of one shape started from others; both, flat."""
    params = make_params(*source_shapes)
    source = Model(run_config(*source_shapes), params, TOKENIZER, step=0)
    fresh = make_params(*shapes, seed=1)
    started = warm_start(run_config(*shapes), TOKENIZER, fresh, source)
    return names.flatten(started), names.flatten(params)


@pytest.mark.parametrize(
    ("shapes", "fields", "message"),
    [
        (PUBLISHED, {"heads": 4}, "heads of 2, the run's of 4"),
        (MODERN, {"local_window": 5}, "window in layer 1 of 3, the run's of 5"),
        (MODERN, {"global_every": 1}, "window in layer 1 of 3, the run's of 0"),
    ],
)
def test_another_attention_is_another_model(shapes, fields, message):
    model, generator = shapes
    with pytest.raises(UsageError, match=message):
        start((dataclasses.replace(model, **fields), generator), shapes)


def test_another_attention_of_the_generator_is_another_model():
    """These two widths differ in the rounded number of heads alone."""
    old, new = ((PUBLISHED[0], GeneratorConfig(width=width)) for width in (0.74, 0.76))
    with pytest.raises(UsageError, match="generator of init.from has a number of heads of 1"):
        start(new, old)


FROZEN = OptimizerConfig(frozen="^generator/")
SHORT = TrainConfig(steps=1, batch_size=8)


@pytest.mark.parametrize("scan", [False, True])
def test_what_would_be_frozen_at_random_is_refused(scan):
    model = dataclasses.replace(PUBLISHED[0], scan=scan)
    source = Model(run_config(*PUBLISHED), make_params(*PUBLISHED), TOKENIZER, step=0)
    del source.params["generator"]["encoder"]
    fresh = roll(Electra(model, PUBLISHED[1]), make_params(*PUBLISHED, seed=1))
    config = run_config(model, PUBLISHED[1], optimizer=FROZEN)
    with pytest.raises(UsageError, match="would keep generator/encoder/.* random"):
        warm_start(config, TOKENIZER, fresh, source)


@pytest.mark.parametrize("pieces", [PIECES, [*PIECES[:5], "dogs", "cat", "zebra"]])
def test_a_masked_language_model_becomes_a_frozen_generator(pieces):
    """Also with another vocabulary."""
    none, whole = GeneratorConfig(kind="none"), GeneratorConfig(width=1.0, share="nothing")
    config = run_config(PUBLISHED[0], none, objective=ObjectiveConfig(name="mlm"))
    params = make_params(PUBLISHED[0], none, head="masked_lm")
    model = dataclasses.replace(PUBLISHED[0], vocab_size=len(pieces))
    run = run_config(model, whole, optimizer=FROZEN)
    source = Model(config, params, TOKENIZER, step=0)
    fresh = make_params(model, whole, seed=1)
    started = warm_start(run, WordPieceTokenizer(pieces), fresh, source)
    old = names.flatten(params)
    for path, array in names.flatten(started["generator"]).items():
        if path != "bias":
            np.testing.assert_array_equal(array, old[f"discriminator/{path}"])
    cat, old_cat = pieces.index("cat"), PIECES.index("cat")
    assert started["generator"]["bias"][cat] == old["discriminator/bias"][old_cat]


def test_disentangled_embeddings_start_others_whole():
    disentangled = (PUBLISHED[0], GeneratorConfig(width=0.5, share="disentangled"))
    for shapes in (PUBLISHED, APART):
        started, old = start(shapes, disentangled)
        expected = old["embeddings/word"] + old["embedding_delta"]
        np.testing.assert_array_equal(started["embeddings/word"], expected)
    np.testing.assert_array_equal(started["generator_embeddings/word"], old["embeddings/word"])


def test_what_a_run_has_no_place_for_is_said(caplog):
    with caplog.at_level("INFO", logger="electra_jax"):
        start(PUBLISHED, PUBLISHED)
        assert not caplog.text
        start(PUBLISHED, APART)
    assert "no place for them: generator_embeddings/norm, generator_embeddings/position" in (
        caplog.text
    )


@pytest.fixture
def store(tmp_path):
    texts = ["the cat eats the dog . the dogs eat ."] * 50
    prepare(texts, TOKENIZER, tmp_path / "store", workers=1, validation_share=0, progress=False)
    return tmp_path / "store"


def test_an_imported_model_does_not_go_on_with_another_tokenizer(store, tmp_path, monkeypatch):
    """Of the same size, so that no shape tells."""
    data = DataConfig(length=16, store=str(store))
    config = dataclasses.replace(run_config(*PUBLISHED, train=SHORT), data=data)
    other = WordPieceTokenizer([*PIECES[:5], *reversed(PIECES[5:])])
    (tmp_path / "run").mkdir()
    save_config(config, tmp_path / "run")
    other.save(tmp_path / "run" / "tokenizer")
    monkeypatch.setattr(Checkpoints, "record", lambda self: {"store": IMPORTED})
    with pytest.raises(UsageError, match="an imported model with another tokenizer"):
        pretrain(config, tmp_path / "run")
    assert load_tokenizer(tmp_path / "run" / "tokenizer").identity == other.identity


def test_a_run_from_nothing_freezes_nothing(store, tmp_path):
    data = DataConfig(length=16, store=str(store))
    config = dataclasses.replace(run_config(*PUBLISHED, optimizer=FROZEN, train=SHORT), data=data)
    with pytest.raises(UsageError, match="give --config.init.from=DIR"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


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
    model = Model(run_config(*PUBLISHED), make_params(*PUBLISHED), TOKENIZER, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    return tmp_path


@pytest.mark.parametrize("results", [None, "{", "[]", '{"metrics": 3}', '{"metrics": {"f1": []}}'])
def test_a_fine_tuning_without_results_is_not_exported(results, tmp_path, monkeypatch):
    """One that was stopped after its first checkpoint has a model, and no results."""
    model = TaskModel(None, types.SimpleNamespace(exported_as="Model"), None, {}, step=1)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    if results:
        (tmp_path / "results.json").write_text(results)
    with pytest.raises(UsageError, match="cannot be read" if results else "let the run finish"):
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
    model = TaskModel(config, task, PUBLISHED[0], params, step=3)
    monkeypatch.setattr(exchange, "load", lambda *_: model)
    (tmp_path / "results.json").write_text('{"metrics": {"mrr": 0.5, "recall": null}}')
    assert export_model(tmp_path, tmp_path / "out") == [str(tmp_path / "out")]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`ElectraModel`" in card and "| mrr | 0.5 |" in card and "recall" not in card


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
