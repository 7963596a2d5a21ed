"""A finished model in use."""

import dataclasses

import jax
import numpy as np
import pytest

from electra_jax.config import PretrainConfig
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.inference.pretrained import PretrainedModel
from electra_jax.models.electra import GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig

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
