"""ELECTRA's two networks and what they share (Clark et al., 2020, section 3).

The generator is a small masked language model, the discriminator tells for every token
whether it was replaced. Both read the same embeddings; after pretraining the generator
is set aside and the discriminator is the encoder people fine-tune.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.errors import UsageError, check_fields, checked, one_of, within
from electra_jax.models.attention import positions_in_documents
from electra_jax.models.encoder import (
    Dense,
    Embeddings,
    Encoder,
    ModelConfig,
    dense,
    gelu,
    norm,
    normal_init,
    stack_layers,
    unstack_layers,
)
from electra_jax.models.layout import constrain
from electra_jax.models.vocabulary import VocabularyLogits, take_positions

HEADS = ("detector", "masked_lm", "copying_lm")
SHARED = ("embeddings", "nothing", "all", "disentangled")
KINDS = ("transformer", "two_tower", "unigram", "uniform", "none")

Logits = VocabularyLogits | tuple[VocabularyLogits, jax.Array]  # with copy logits beside them


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """The network that fills in masked tokens. Its shape is given as shares of the main network's.

    Kinds: a `transformer`; a `two_tower`, one encoder for each side, which needs no masks;
    `unigram`, learnt frequencies of tokens; `uniform`, nothing learnt; `none`, for
    objectives without one.

    Shared: the `embeddings`; `nothing`; `all` of the encoder; or the word embeddings
    `disentangled`, as the discriminator reads them with its own difference added and sends
    no gradient into them (He et al., 2023, DeBERTaV3, section 3.3).
    """

    # transformer, two_tower, unigram, uniform or none (docs/objectives.md)
    kind: str = checked("transformer", one_of(KINDS))
    width: float = checked(0.25, within("(0, 4]"))  # of hidden, intermediate and heads
    depth: float = checked(1.0, within("(0, 4]"))  # of layers
    # with the discriminator: embeddings, nothing, all or disentangled
    share: str = checked("embeddings", one_of(SHARED))

    def __post_init__(self) -> None:
        check_fields("generator", self)
        if self.share == "all" and (self.kind, self.width, self.depth) != ("transformer", 1, 1):
            raise UsageError(
                "generator.share=all is one transformer for both networks: set "
                "generator.kind=transformer, generator.width=1.0 and generator.depth=1.0"
            )


def generator_model(model: ModelConfig, generator: GeneratorConfig) -> ModelConfig:
    """The generator's own encoder config."""
    return dataclasses.replace(
        model,
        hidden=round(model.hidden * generator.width),
        intermediate=round(model.intermediate * generator.width),
        heads=max(1, round(model.heads * generator.width)),
        layers=max(1, round(model.layers * generator.depth)),
    )


class MaskedLanguageModel(nn.Module):
    """A masked language model whose output matrix is the word embedding.

    Head: dense to the embedding's width, GELU, norm, tied decoder with bias. With
    `hidden_BLD` the encoder is another network's. `copies` gives it the copy logit of
    All-Tokens MLM, too.
    """

    config: ModelConfig
    copies: bool = False

    @nn.compact
    def __call__(
        self,
        x_BLE: jax.Array,
        word_VE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        masked_BN: jax.Array,
        train: bool = False,
        hidden_BLD: jax.Array | None = None,
    ) -> Logits:
        c = self.config
        if hidden_BLD is None:
            hidden_BLD = Encoder(c, name="encoder")(x_BLE, documents_BL, positions_BL, train)
        # Only masked positions reach the head: it is the widest product of the network.
        x_BND = constrain(take_positions(hidden_BLD, masked_BN), "batch")
        logits = self.predict(x_BND, word_VE)
        if not self.copies:
            return logits
        copy_BN1 = Dense(1, dtype=jnp.float32, kernel_init=normal_init, name="copy")(x_BND)
        return logits, copy_BN1[..., 0]

    def predict(self, x_BND: jax.Array, word_VE: jax.Array) -> VocabularyLogits:
        c = self.config
        x_BNE = norm(c, "norm")(gelu(dense(c, c.embedding, "dense", output=True)(x_BND)))
        bias_V = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return VocabularyLogits(x_BNE, word_VE, bias_V)


class TwoTowers(MaskedLanguageModel):
    """A cloze model of every token that never sees it: one tower for each side.

    The towers' outputs for the neighbours to the left and right go into the head.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x_BLE: jax.Array,
        word_VE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        masked_BN: jax.Array,
        train: bool = False,
    ) -> VocabularyLogits:
        c = self.config
        sides = []
        for name, direction in (("left", 1), ("right", -1)):
            tower = Encoder(c, direction, name=name)
            x_BLD = tower(x_BLE, documents_BL, positions_BL, train)
            neighbour = jnp.roll(x_BLD, direction, axis=1)
            # Nothing comes from another document, or round the row's ends.
            same_BL = jnp.roll(documents_BL, direction, axis=1) == documents_BL
            same_BL = same_BL.at[:, 0 if direction > 0 else -1].set(False)
            sides.append(jnp.where(same_BL[..., None], neighbour, 0.0))
        return self.predict(take_positions(jnp.concatenate(sides, axis=-1), masked_BN), word_VE)


class Unigram(nn.Module):
    """The frequency of each token, learnt; the same at every position."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BLE: jax.Array,
        word_VE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        masked_BN: jax.Array,
        train: bool = False,
    ) -> VocabularyLogits:
        bias_V = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,))
        return same_everywhere(bias_V, masked_BN)


def same_everywhere(bias_V: jax.Array, masked_BN: jax.Array) -> VocabularyLogits:
    """Logits that do not depend on the position."""
    return VocabularyLogits(jnp.zeros((*masked_BN.shape, 1)), jnp.zeros((*bias_V.shape, 1)), bias_V)


GENERATORS = {"transformer": MaskedLanguageModel, "two_tower": TwoTowers, "unigram": Unigram}


class Discriminator(nn.Module):
    """The encoder with a head that gives every token the logit of having been replaced.

    Head: dense, GELU, (norm, in the modern architecture,) dense to one.
    """

    config: ModelConfig

    def setup(self) -> None:
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

    def __call__(
        self,
        x_BLE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        hidden_BLD = self.encode(x_BLE, documents_BL, positions_BL, train)
        x_BLD = constrain(gelu(self.dense(hidden_BLD)), "batch")
        if self.config.block.pre_norm:
            x_BLD = self.norm(x_BLD)
        return self.classifier(x_BLD)[..., 0]

    def encode(
        self,
        x_BLE: jax.Array,
        documents_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        return self.encoder(x_BLE, documents_BL, positions_BL, train)


class Electra(nn.Module):
    """Both networks. Parameters: `embeddings`, `generator`, `discriminator`.

    The discriminator is the main network, the one that is kept. Its head is a `detector`;
    under objectives that make it a language model a `masked_lm`, or a `copying_lm`.
    """

    model: ModelConfig
    generator_config: GeneratorConfig
    head: str = "detector"

    def setup(self) -> None:
        config = self.generator_config
        self.embeddings = Embeddings(self.model)
        if config.share == "nothing" and config.kind != "none":
            self.generator_embeddings = Embeddings(self.model)
        if config.share == "disentangled":
            shape = (self.model.vocab_size, self.model.embedding)
            self.embedding_delta = self.param("embedding_delta", nn.initializers.zeros, shape)
        if config.kind in GENERATORS:
            self.generator = GENERATORS[config.kind](generator_model(self.model, config))
        if self.head == "detector":
            self.discriminator: Any = Discriminator(self.model)
        else:
            self.discriminator = MaskedLanguageModel(self.model, copies=self.head == "copying_lm")

    def generate(
        self,
        tokens_BL: jax.Array,
        documents_BL: jax.Array,
        types_BL: jax.Array,
        masked_BN: jax.Array,
        train: bool = False,
    ) -> VocabularyLogits:
        """Logits over the vocabulary at the masked positions."""
        config = self.generator_config
        if config.kind == "uniform":
            return same_everywhere(jnp.zeros(self.model.vocab_size), masked_BN)
        embeddings = self.generator_embeddings if config.share == "nothing" else self.embeddings
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = embeddings(tokens_BL, types_BL, positions_BL, train)
        rows = (x_BLE, embeddings.word, documents_BL, positions_BL, masked_BN, train)
        if config.share == "all":
            hidden_BLD = self.discriminator.encode(x_BLE, documents_BL, positions_BL, train)
            return self.generator(*rows, hidden_BLD)
        return self.generator(*rows)

    def embed(
        self,
        tokens_BL: jax.Array,
        types_BL: jax.Array,
        positions_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        """The main network's input, [B, L, E]."""
        word_VE = None
        if self.generator_config.share == "disentangled":
            word_VE = jax.lax.stop_gradient(self.embeddings.word) + self.embedding_delta
        return self.embeddings(tokens_BL, types_BL, positions_BL, train, word_VE)

    def discriminate(
        self,
        tokens_BL: jax.Array,
        documents_BL: jax.Array,
        types_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        """Logit that each token was replaced, float32 [B, L]; padding is meaningless."""
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = self.embed(tokens_BL, types_BL, positions_BL, train)
        return self.discriminator(x_BLE, documents_BL, positions_BL, train)

    def predict(
        self,
        tokens_BL: jax.Array,
        documents_BL: jax.Array,
        types_BL: jax.Array,
        predicted_BN: jax.Array,
        train: bool = False,
    ) -> Logits:
        """A main language model's logits at some positions.

        With a `copying_lm`, copy logits [B, N] beside them.
        """
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = self.embed(tokens_BL, types_BL, positions_BL, train)
        return self.discriminator(
            x_BLE, self.embeddings.word, documents_BL, positions_BL, predicted_BN, train
        )

    def encode(
        self,
        tokens_BL: jax.Array,
        documents_BL: jax.Array,
        types_BL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        """The discriminator's hidden states, [B, L, D]."""
        positions_BL = positions_in_documents(documents_BL)
        x_BLE = self.embed(tokens_BL, types_BL, positions_BL, train)
        return self.discriminator.encode(x_BLE, documents_BL, positions_BL, train)

    def __call__(
        self,
        tokens_BL: jax.Array,
        documents_BL: jax.Array,
        types_BL: jax.Array,
        masked_BN: jax.Array,
    ) -> tuple[VocabularyLogits | None, Logits | jax.Array]:
        """Touches every parameter; used to make them."""
        rows = (tokens_BL, documents_BL, types_BL)
        generated = None
        if self.generator_config.kind in GENERATORS:
            generated = self.generate(*rows, masked_BN)
        if self.head == "detector":
            return generated, self.discriminate(*rows)
        return generated, self.predict(*rows, masked_BN)


def init_params(electra: Electra, key: jax.Array) -> dict:
    """Fresh float32 parameters; a scanned model's equal the unrolled model's, stacked."""
    unrolled = dataclasses.replace(electra, model=dataclasses.replace(electra.model, scan=False))
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = unrolled.init(key, tokens, tokens, tokens, tokens[:, :1])["params"]
    return stack_params(electra, params)


def stack_params(electra: Electra, params: dict) -> dict:
    """Unrolled parameters, or a part of them, as `electra` has them: stacked if it scans."""
    return _each_encoder(electra, params, stack_layers) if electra.model.scan else params


def unstack_params(electra: Electra, params: dict) -> dict:
    """The inverse of `stack_params`."""
    return _each_encoder(electra, params, unstack_layers) if electra.model.scan else params


def _each_encoder(electra: Electra, params: dict, change: Callable) -> dict:
    configs = {
        "generator": generator_model(electra.model, electra.generator_config),
        "discriminator": electra.model,
    }
    changed = {
        name: {
            part: change(value, configs[name]) if part in ("encoder", "left", "right") else value
            for part, value in params[name].items()
        }
        for name in configs
        if name in params
    }
    return {**params, **changed}


def count_params(params: dict) -> int:
    """Number of parameters in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
