"""The two networks: their sizes, what they share, how they start."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import make_params

from electra_jax.config import load_config, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.models.electra import (
    Electra,
    GeneratorConfig,
    count_params,
    generator_model,
    init_params,
)
from electra_jax.models.encoder import ModelConfig

TINY = ModelConfig(
    vocab_size=50, layers=3, hidden=16, heads=2, intermediate=32, embedding=8, max_positions=16
)
MODERN = dataclasses.replace(TINY, architecture="modern", embedding=16)


def shapes(electra):
    return jax.eval_shape(functools.partial(init_params, electra), jax.random.key(0))


def paths(params):
    """ "a/b/c" → leaf."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(p.key for p in path): leaf for path, leaf in flat}


@pytest.mark.parametrize(
    ("size", "discriminator", "joint"),
    [
        ("small", 13_549_057, 14_196_219),
        ("base", 109_483_009, 119_386_427),
        ("large", 335_142_913, 354_655_291),
    ],
)
def test_published_sizes_have_the_published_parameters(size, discriminator, joint):
    config = pretrain_config(load_config(f"pretrain/{size}", ["model.vocab_size=30522"]).to_dict())
    params = shapes(Electra(config.model, config.generator))
    assert count_params(params) == joint
    del params["generator"]
    assert count_params(params) == discriminator


def test_generator_shape_follows_its_shares():
    small = generator_model(ModelConfig(), GeneratorConfig())
    assert (small.hidden, small.intermediate, small.heads, small.layers) == (64, 256, 1, 12)
    assert (small.embedding, small.max_positions) == (128, 512)
    shallow = generator_model(TINY, GeneratorConfig(width=1.0, depth=0.1))
    assert (shallow.hidden, shallow.layers) == (16, 1)


def test_networks_share_embeddings_unless_told_otherwise():
    shared = shapes(Electra(TINY, GeneratorConfig(width=0.5)))
    assert set(shared) == {"embeddings", "generator", "discriminator"}
    assert set(shared["embeddings"]) == {"word", "position", "type", "norm"}
    # A projection stands only where the width differs from the embedding's.
    assert "embeddings_project" not in shared["generator"]["encoder"]
    assert "embeddings_project" in shared["discriminator"]["encoder"]
    apart = shapes(Electra(TINY, GeneratorConfig(width=0.5, share="nothing")))
    assert set(apart) == {*shared, "generator_embeddings"}


@pytest.mark.slow
@pytest.mark.parametrize("share", ["embeddings", "nothing"])
def test_generator_reads_and_ties_to_its_own_embeddings(share):
    """An untied generator whose input or output still comes from the discriminator's."""
    tiny = dataclasses.replace(TINY, layers=1)
    electra = Electra(tiny, GeneratorConfig(width=0.5, share=share))
    params = make_params(tiny, electra.generator_config)
    tokens = jnp.arange(8)[None] + 5
    ones = jnp.ones((1, 8), jnp.int32)

    def gradient(method, *args):
        def loss(params):
            out = electra.apply({"params": params}, tokens, ones, ones, *args, method=method)
            return jnp.sum((out.whole() if method == "generate" else out) ** 2)

        words = jax.jit(jax.grad(loss))(params)
        own = words.get("generator_embeddings", words["embeddings"])
        return np.abs(own["word"]).max(-1) > 0, np.abs(words["embeddings"]["word"]).max(-1) > 0

    own, other = gradient("generate", ones[:, :2])
    assert own.all()  # the tied output matrix reaches every word
    assert other.all() == (share == "embeddings")
    own, other = gradient("discriminate")
    assert other.sum() == 8
    assert own.any() == (share == "embeddings")


def test_modern_block_has_no_bias_and_no_first_attention_norm():
    """Biases stand in the last layers of the heads alone."""
    names = paths(shapes(Electra(MODERN, GeneratorConfig(width=1.0))))
    biases = {name for name in names if name.endswith("bias")}
    assert biases == {"generator/bias", "discriminator/classifier/bias"}
    for network in ("generator", "discriminator"):
        assert not any(n.startswith(f"{network}/encoder/layer_0/attention_norm") for n in names)
        assert f"{network}/encoder/layer_1/attention_norm/scale" in names
        assert f"{network}/encoder/layer_0/feedforward_norm/scale" in names
        assert f"{network}/encoder/final_norm/scale" in names
    assert set(n for n in names if n.startswith("embeddings")) == {
        "embeddings/word",
        "embeddings/norm/scale",
    }


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["published", "modern"])
def test_parameters_start_at_their_scale(architecture):
    """Lecun initialisation (Flax's default), or a residual stream that is not scaled."""
    config = ModelConfig(
        architecture, vocab_size=500, layers=2, hidden=64, heads=2, intermediate=96, embedding=64
    )
    if architecture == "published":
        config = dataclasses.replace(config, embedding=32)
    electra = Electra(config, GeneratorConfig(width=1.0))
    params = paths(jax.jit(functools.partial(init_params, electra))(jax.random.key(0)))
    glorot = r"embeddings_project|classifier" if architecture == "published" else "$^"
    for name, leaf in params.items():
        if leaf.ndim < 2:
            np.testing.assert_array_equal(leaf, float(name.endswith("scale")), err_msg=name)
            continue
        if re.search(glorot, name):
            limit = np.sqrt(6 / sum(leaf.shape))
            assert 0.8 * limit < np.abs(leaf).max() <= limit, name
            continue
        std = 0.02
        if architecture == "modern" and "classifier" in name:
            std = 64**-0.5
        elif architecture == "modern" and re.search(r"(output|narrow|dense)/kernel", name):
            std = 0.02 / np.sqrt(2 * config.layers)
        # Cut off at two standard deviations of the untruncated normal.
        assert np.abs(leaf).max() <= 2 * std * (1 + 1e-6), name
        assert leaf.size < 100 or np.std(leaf) == pytest.approx(0.88 * std, rel=0.15), name


@pytest.mark.parametrize("field", ["width", "depth"])
def test_a_generator_that_makes_no_sense_is_refused(field):
    with pytest.raises(UsageError, match=rf"generator.{field} must be in"):
        GeneratorConfig(**{field: 0.0})
    with pytest.raises(UsageError, match="use embeddings, nothing"):
        GeneratorConfig(share="some")
