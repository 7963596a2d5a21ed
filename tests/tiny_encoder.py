"""A tiny encoder that was never pretrained, as a model directory."""

import jax
import numpy as np

from electra_jax.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer
from electra_jax.interop import huggingface, names
from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig

WORDS = [f"{a}{b}{c}" for a in "bdgkm" for b in "aou" for c in "lnrs"]
PIECES = [*SPECIAL_TOKENS, *WORDS, "good", "bad", "##ly", ".", "?", "a"]
TOKENIZER = WordPieceTokenizer(PIECES)


def make_model(folder, architecture="modern", layers=2):
    """Writes a tiny model of an architecture in Hugging Face's format."""
    model = ModelConfig(
        architecture=architecture, vocab_size=len(PIECES), layers=layers, hidden=32,
        heads=2, intermediate=64, embedding=32, max_positions=64,
    )  # fmt: skip
    generator = GeneratorConfig(width=1.0, depth=0.5)
    create = jax.jit(lambda key: init_params(Electra(model, generator), key))
    params = jax.device_get(create(jax.random.key(0)))
    # Larger than usual, so that so small an encoder learns within a test.
    params["embeddings"]["word"] = 20 * np.asarray(params["embeddings"]["word"])
    flat = names.split_networks(params)["discriminator"]
    huggingface.write_network(folder, "discriminator", flat, model, TOKENIZER)
    return folder
