"""Tiny models with random weights, of both architectures, and their tokenizer."""

import dataclasses

import jax
import numpy as np

from electra_jax.config import PretrainConfig
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import WordPieceTokenizer
from electra_jax.models.electra import Electra, GeneratorConfig, init_params
from electra_jax.models.encoder import ModelConfig

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


def run_config(model, generator, **sections):
    return PretrainConfig(model=model, generator=generator, data=DataConfig(length=16), **sections)
