"""A finished model in use."""

import jax
import pytest

from electra_jax.config import PretrainConfig
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.inference import Model
from electra_jax.models.electra import GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "##s", "eat", "."]


@pytest.mark.slow
def test_only_pieces_are_suggested():
    """The model's vocabulary may be larger than the tokenizer's."""
    model = ModelConfig(
        vocab_size=32, layers=1, hidden=8, heads=1, intermediate=8, embedding=8, max_positions=8
    )
    config = PretrainConfig(
        model=model, generator=GeneratorConfig(width=1.0), data=DataConfig(length=8)
    )
    params = jax.jit(lambda key: init_params(config.electra, key))(jax.random.key(0))
    params["generator"]["bias"] = params["generator"]["bias"].at[len(PIECES) :].set(9.0)
    tokens = Model(config, params, WordPieceTokenizer(PIECES), step=0).inspect("the cat", 10)
    for token in tokens:
        assert {piece for piece, _ in token.suggestions} <= set(PIECES)
        assert sum(probability for _, probability in token.suggestions) > 0.5
