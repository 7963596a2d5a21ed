"""Runs that start from another model: its rows, what it must share, what may not be frozen."""

import dataclasses

import numpy as np
import pytest
from tiny_model import APART, MODERN, PIECES, PUBLISHED, TOKENIZER, make_params, run_config

from electra_jax.config import InitConfig, PretrainConfig, load_config
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer import WordPieceTokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import PretrainedModel
from electra_jax.interop import names
from electra_jax.models.electra import Electra, GeneratorConfig, stack_params
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.pretraining.pretrain import pretrain
from electra_jax.pretraining.resume import IMPORTED
from electra_jax.pretraining.warm_start import adopt_shape, change_vocabulary, warm_start
from electra_jax.run_directory import save_config
from electra_jax.training.checkpoint import Checkpoints
from electra_jax.training.config import TrainConfig
from electra_jax.training.optimizer import OptimizerConfig


def test_a_new_vocabulary_keeps_shared_rows_and_averages_new_ones():
    model, generator = PUBLISHED
    params = make_params(*PUBLISHED)
    source = PretrainedModel(
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


def start(shapes, source_shapes):
    """Fresh parameters of one shape started from others; both, flat."""
    params = make_params(*source_shapes)
    source = PretrainedModel(run_config(*source_shapes), params, TOKENIZER, step=0)
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
    source = PretrainedModel(run_config(*PUBLISHED), make_params(*PUBLISHED), TOKENIZER, step=0)
    del source.params["generator"]["encoder"]
    fresh = stack_params(Electra(model, PUBLISHED[1]), make_params(*PUBLISHED, seed=1))
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
    source = PretrainedModel(config, params, TOKENIZER, step=0)
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


def adopted(source, workdir, *overrides):
    """The model's and the generator's fields of a run of `tiny` that starts from a model."""
    overrides = [f"init.from={source}", *overrides]
    fields = load_config("pretrain/tiny", overrides)
    adopt_shape(fields, overrides, workdir)
    return fields


def test_a_run_has_the_shape_of_the_model_it_starts_from(tmp_path, caplog):
    """Its dropout stays that of the config, and a shape that is typed stays as it is typed."""
    caplog.set_level("INFO")
    source = tmp_path / "source"
    source.mkdir()
    model = dataclasses.replace(PUBLISHED[0], dtype="bfloat16", dropout=0.3)
    save_config(run_config(model, PUBLISHED[1]), source)
    fields = adopted(source, tmp_path / "new", "model.layers=1", "generator.depth=0.25")
    assert fields.model.architecture == "published" and fields.model.dtype == "bfloat16"
    assert (fields.model.layers, fields.model.hidden, fields.model.dropout) == (1, 16, 0.0)
    assert (fields.generator.width, fields.generator.depth) == (0.5, 0.25)
    assert "as in init.from: model.architecture=published" in caplog.text


def test_a_run_that_has_begun_needs_the_shape_of_its_model_no_more(tmp_path):
    source, workdir = tmp_path / "gone", tmp_path / "run"
    workdir.mkdir()
    begun = dataclasses.replace(run_config(*MODERN), init=InitConfig(from_=str(source)))
    save_config(begun, workdir)
    assert adopted(source, workdir).model.hidden == MODERN[0].hidden
    with pytest.raises(UsageError, match="is not a run directory"):
        adopted(source, tmp_path / "new")


def test_a_model_without_a_generator_leaves_the_one_of_the_config(encoder_dir, tmp_path):
    fields = adopted(encoder_dir, tmp_path / "new")
    assert fields.model.hidden == 32 and fields.generator.depth == 0.5
