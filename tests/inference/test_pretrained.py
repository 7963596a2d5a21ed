"""A finished model in use."""

import dataclasses
import json
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from electra_jax.config import PretrainConfig
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.pretrained import PretrainedModel, load_pretrained
from electra_jax.models.electra import GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.training.checkpoint import Checkpoints

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "##s", "eat", "."]


@pytest.fixture(scope="module")
def model():
    """Its vocabulary is larger than the tokenizer's."""
    shape = ModelConfig(
        vocab_size=32, layers=1, hidden=8, heads=1, intermediate=8, embedding=8, max_positions=8
    )
    config = PretrainConfig(
        model=shape, generator=GeneratorConfig(width=1.0), data=DataConfig(length=8)
    )
    params = jax.jit(lambda key: init_params(config.electra, key))(jax.random.key(0))
    return PretrainedModel(config, params, WordPieceTokenizer(PIECES), step=0)


@pytest.mark.slow
def test_only_pieces_are_suggested(model):
    generator = model.params["generator"]
    bias = generator["bias"].at[len(PIECES) :].set(9.0)
    params = {**model.params, "generator": {**generator, "bias": bias}}
    tokens = dataclasses.replace(model, params=params).inspect("the cat", 10)
    for token in tokens:
        assert {piece for piece, _ in token.suggestions} <= set(PIECES)
        assert sum(probability for _, probability in token.suggestions) > 0.5


def test_a_pretrained_model_embeds(model, caplog):
    texts = ["the cat eat .", "the dog", "the " * 7]
    vectors = model.embed(texts)
    assert vectors.shape == (3, 8) and "1 of 3 texts are cut to 8 tokens" in caplog.text
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(model.embed(texts[1:2]), vectors[1:2], atol=1e-5)
    assert not np.allclose(model.embed(texts, "cls"), vectors, atol=1e-3)


@pytest.fixture
def run(tmp_path):
    """The run directory that version 0.1 wrote."""
    with tarfile.open(Path(__file__).parent.parent / "golden" / "formats-0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layers": 2**30}, r"model.layers must be in \[1, 10000\]"),  # traced one by one
        ({"vocab_size": 2**31 - 1}, "have no room"),
        ({"hidden": 2**20, "heads": 1, "embedding": 2**20}, "have no room"),
    ],
)
def test_a_config_that_its_weights_do_not_go_with_takes_no_memory(
    run, fields, message, monkeypatch
):
    # Whoever made it up has changed the record of the checkpoint, too.
    monkeypatch.setattr("electra_jax.inference.pretrained.check_config", lambda *_: None)
    file = run / "config.json"
    config = json.loads(file.read_text())
    config["model"].update(fields)
    file.write_text(json.dumps(config))
    with pytest.raises(UsageError, match=message):
        load_pretrained(run)


def test_another_tokenizer_in_a_run_is_refused(run, monkeypatch):
    record = {"tokenizer": load_pretrained(run).tokenizer.identity}
    monkeypatch.setattr(Checkpoints, "record_at", lambda self, step: record)  # as of today
    before = load_pretrained(run).tokenizer
    pieces = before.pieces(range(before.vocab_size))
    WordPieceTokenizer([*pieces[:-2], pieces[-1], pieces[-2]]).save(run / "tokenizer")
    with pytest.raises(UsageError, match="tokenizer is not the tokenizer that the run was trained"):
        load_pretrained(run)
    record.clear()  # a run of before: its size alone tells
    assert load_pretrained(run).tokenizer.identity != before.identity
    WordPieceTokenizer([*pieces, "more"]).save(run / "tokenizer")
    with pytest.raises(UsageError, match="tokenizer is not the tokenizer that the run was trained"):
        load_pretrained(run)
