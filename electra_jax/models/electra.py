"""ELECTRA's two networks and what they share (Clark et al., 2020, section 3).

The generator is a small masked language model, the discriminator tells for every token
whether it was replaced. Both read the same embeddings; after pretraining the generator
is set aside and the discriminator is the encoder people fine-tune.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UsageError
from electra_jax.models.attention import positions_in_documents
from electra_jax.models.encoder import (
    Dense,
    Embeddings,
    Encoder,
    ModelConfig,
    dense,
    gelu,
    norm,
    stack_layers,
    unstack_layers,
)

SHARED = ("embeddings", "nothing")


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """The generator's shape, as shares of the discriminator's."""

    width: float = 0.25  # of hidden, intermediate and heads
    depth: float = 1.0  # of layers
    share: str = "embeddings"  # with the discriminator: embeddings or nothing

    def __post_init__(self):
        if self.share not in SHARED:
            raise UsageError(f"generator.share={self.share!r} is unknown; use {', '.join(SHARED)}")
        for field in ("width", "depth"):
            if not 0 < getattr(self, field) <= 4:
                raise UsageError(f"generator.{field} must be in (0, 4], not {getattr(self, field)}")


def generator_model(model: ModelConfig, generator: GeneratorConfig) -> ModelConfig:
    """The generator's own encoder config."""
    return dataclasses.replace(
        model,
        hidden=round(model.hidden * generator.width),
        intermediate=round(model.intermediate * generator.width),
        heads=max(1, round(model.heads * generator.width)),
        layers=max(1, round(model.layers * generator.depth)),
    )


def take_positions(x_BLD: jax.Array, positions_BN: jax.Array) -> jax.Array:
    """The vectors at the given positions, [B, N, D]."""
    return jnp.take_along_axis(x_BLD, positions_BN[..., None], axis=1)


class Generator(nn.Module):
    """A masked language model whose output matrix is the word embedding.

    Head: dense to the embedding's width, GELU, norm, tied decoder with bias.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_BLE, word_VE, documents_BL, positions_BL, masked_BN, train: bool = False
    ) -> jax.Array:
        c = self.config
        x_BLD = Encoder(c, name="encoder")(x_BLE, documents_BL, positions_BL, train)
        # Only masked positions reach the head: it is the widest product of the network.
        x_BND = take_positions(x_BLD, masked_BN)
        x_BNE = norm(c, "norm")(gelu(dense(c, c.embedding, "dense", output=True)(x_BND)))
        bias_V = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        logits_TV = jnp.einsum(
            "te,ve->tv",
            x_BNE.reshape(-1, c.embedding),
            word_VE.astype(c.compute_dtype),
            preferred_element_type=jnp.float32,
        )
        return (logits_TV + bias_V).reshape(*masked_BN.shape, -1)


class Discriminator(nn.Module):
    """The encoder with a head that gives every token the logit of having been replaced.

    Head: dense, GELU, (norm, in the modern architecture,) dense to one.
    """

    config: ModelConfig

    def setup(self):
        c = self.config
        self.encoder = Encoder(c)
        self.dense = dense(c, c.hidden, None, output=True)
        if c.block.pre_norm:
            self.norm = norm(c, None)
        last_init = nn.initializers.truncated_normal(c.hidden**-0.5)
        self.classifier = Dense(
            1,
            dtype=jnp.float32,
            kernel_init=last_init if c.block.pre_norm else nn.initializers.glorot_uniform(),
        )

    def __call__(self, x_BLE, documents_BL, positions_BL, train: bool = False) -> jax.Array:
        x_BLD = gelu(self.dense(self.encode(x_BLE, documents_BL, positions_BL, train)))
        if self.config.block.pre_norm:
            x_BLD = self.norm(x_BLD)
        return self.classifier(x_BLD)[..., 0]

    def encode(self, x_BLE, documents_BL, positions_BL, train: bool = False) -> jax.Array:
        return self.encoder(x_BLE, documents_BL, positions_BL, train)


class Electra(nn.Module):
    """Both networks. Parameters: `embeddings`, `generator`, `discriminator`."""

    model: ModelConfig
    generator_config: GeneratorConfig

    def setup(self):
        self.embeddings = Embeddings(self.model)
        if self.generator_config.share == "nothing":
            self.generator_embeddings = Embeddings(self.model)
        self.generator = Generator(generator_model(self.model, self.generator_config))
        self.discriminator = Discriminator(self.model)

    def generate(
        self, tokens_BL, documents_BL, types_BL, masked_BN, train: bool = False
    ) -> jax.Array:
        """Logits over the vocabulary at the masked positions, float32 [B, N, V]."""
        shared = self.generator_config.share == "embeddings"
        embeddings = self.embeddings if shared else self.generator_embeddings
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = embeddings(tokens_BL, types_BL, positions_BL, train)
        return self.generator(x_BLE, embeddings.word, documents_BL, positions_BL, masked_BN, train)

    def discriminate(self, tokens_BL, documents_BL, types_BL, train: bool = False) -> jax.Array:
        """Logit that each token was replaced, float32 [B, L]; padding is meaningless."""
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = self.embeddings(tokens_BL, types_BL, positions_BL, train)
        return self.discriminator(x_BLE, documents_BL, positions_BL, train)

    def encode(self, tokens_BL, documents_BL, types_BL, train: bool = False) -> jax.Array:
        """The discriminator's hidden states, [B, L, D]."""
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = self.embeddings(tokens_BL, types_BL, positions_BL, train)
        return self.discriminator.encode(x_BLE, documents_BL, positions_BL, train)

    def __call__(self, tokens_BL, documents_BL, types_BL, masked_BN):
        """Touches every parameter; used to make them."""
        logits_BNV = self.generate(tokens_BL, documents_BL, types_BL, masked_BN)
        return logits_BNV, self.discriminate(tokens_BL, documents_BL, types_BL)


def init_params(electra: Electra, key: jax.Array) -> dict:
    """Fresh float32 parameters; a scanned model's equal the unrolled model's, stacked."""
    unrolled = Electra(dataclasses.replace(electra.model, scan=False), electra.generator_config)
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = unrolled.init(key, tokens, tokens, tokens, tokens[:, :1])["params"]
    return roll(electra, params)


def roll(electra: Electra, params: dict) -> dict:
    """Unrolled parameters, or a part of them, as `electra` has them: stacked if it scans."""
    return _each_encoder(electra, params, stack_layers) if electra.model.scan else params


def unroll(electra: Electra, params: dict) -> dict:
    """The inverse of `roll`."""
    return _each_encoder(electra, params, unstack_layers) if electra.model.scan else params


def _each_encoder(electra: Electra, params: dict, change: Callable) -> dict:
    configs = {
        "generator": generator_model(electra.model, electra.generator_config),
        "discriminator": electra.model,
    }
    changed = {
        name: {**params[name], "encoder": change(params[name]["encoder"], config)}
        for name, config in configs.items()
        if name in params
    }
    return {**params, **changed}


def count_params(params: dict) -> int:
    """Number of parameters in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
