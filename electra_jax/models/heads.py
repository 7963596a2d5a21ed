"""Heads for tasks, over an encoder.

By default a head has the layers of Hugging Face's class for the architecture; `official` ones
are those of ELECTRA's own code. Fresh layers start at Glorot's deviation, and not at the
encoder's 0.02: two such layers in a row pass on too little to learn from few rows. A head takes
the hidden states [N, L, D] of all rows of a batch, which tokens are real [N, L], the batch
itself, and whether it is being trained.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.models.attention import positions_in_documents
from electra_jax.models.dropout import Dropout
from electra_jax.models.encoder import Dense, Embeddings, Encoder, ModelConfig, dense, gelu, norm

fresh_init = nn.initializers.glorot_uniform()
JOINT_WIDTH = 512  # of its hidden layers


class EncoderWithHead(nn.Module):
    """A pretrained encoder and a task's head. Parameters: `embeddings`, `encoder`, `head`."""

    model: ModelConfig
    head: nn.Module

    def setup(self) -> None:
        self.embeddings = Embeddings(self.model)
        self.encoder = Encoder(self.model)

    def encode(
        self,
        tokens_NL: jax.Array,
        documents_NL: jax.Array,
        types_NL: jax.Array,
        train: bool = False,
    ) -> jax.Array:
        """Hidden states [N, L, D]."""
        positions_NL = positions_in_documents(documents_NL)
        x_NLE = self.embeddings(tokens_NL, types_NL, positions_NL, train)
        return self.encoder(x_NLE, documents_NL, positions_NL, train)

    def __call__(self, batch: Mapping[str, jax.Array], train: bool = False) -> Any:
        """The head's outputs for each example.

        Rows [B, R, L] are encoded side by side; with R = 1 that dimension is left out.
        """
        tokens_NL, documents_NL, types_NL = (
            batch[name].reshape(-1, batch[name].shape[-1])
            for name in ("tokens", "documents", "types")
        )
        hidden_NLD = self.encode(tokens_NL, documents_NL, types_NL, train)
        # A head that writes text reads the encoder's table of words.
        batch = {**batch, "word_embeddings": self.embeddings.word}
        outputs = self.head(hidden_NLD, documents_NL > 0, batch, train)
        rows = batch["tokens"].shape[:2]
        if rows[1] == 1:
            return outputs
        return jax.tree.map(lambda x: x.reshape(*rows, *x.shape[1:]), outputs)


def pool(hidden_NLD: jax.Array, real_NL: jax.Array, pooling: str) -> jax.Array:
    """One vector for each row: that of [CLS], or the mean over real tokens, [N, D]."""
    if pooling == "cls":
        return hidden_NLD[:, 0]
    weights_NL1 = real_NL[..., None].astype(hidden_NLD.dtype)
    return (hidden_NLD * weights_NL1).sum(1) / jnp.maximum(weights_NL1.sum(1), 1.0)


class Transform(nn.Module):
    """The part of a classifier before its last dense layer.

    Published: dropout, dense, GELU, dropout over pooled rows, and dropout alone over tokens;
    modern: dense, GELU, norm, dropout. Official: dropout alone.
    """

    config: ModelConfig
    per_token: bool = False
    official: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)
        if c.block.pre_norm and not self.official:
            return drop(norm(c, "norm")(gelu(self._dense()(x))))
        if self.per_token or self.official:
            return drop(x)
        return drop(gelu(self._dense()(drop(x))))

    def _dense(self) -> Dense:
        return dense(self.config, self.config.hidden, "dense", kernel_init=fresh_init)


def scores(features: int, name: str = "classifier") -> Dense:
    """The last layer, in float32."""
    return Dense(features, dtype=jnp.float32, kernel_init=fresh_init, name=name)


class RowHead(nn.Module):
    """Scores of each row: [N, features]; pooled as the architecture does, unless named."""

    config: ModelConfig
    features: int
    pooling: str = ""
    official: bool = False

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> jax.Array:
        x_ND = pool(hidden_NLD, real_NL, self.pooling or self.config.block.pooling)
        x_ND = Transform(self.config, official=self.official, name="transform")(x_ND, train)
        return scores(self.features)(x_ND)


class TokenHead(nn.Module):
    """Scores of each token: [N, L, features]."""

    config: ModelConfig
    features: int
    official: bool = False

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> jax.Array:
        transform = Transform(self.config, True, self.official, name="transform")
        return scores(self.features)(transform(hidden_NLD, train))


class RowAndTokenHead(nn.Module):
    """Scores of each row and of each token: ([N, row features], [N, L, token features])."""

    config: ModelConfig
    row_features: int
    token_features: int
    pooling: str = ""

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        inputs = (hidden_NLD, real_NL, batch, train)
        return (
            RowHead(self.config, self.row_features, self.pooling, name="row")(*inputs),
            TokenHead(self.config, self.token_features, name="token")(*inputs),
        )


class PoolingHead(nn.Module):
    """A unit vector for each row, [N, D]; it has no parameters."""

    pooling: str = "mean"

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> jax.Array:
        x_ND = pool(hidden_NLD, real_NL, self.pooling).astype(jnp.float32)
        # Not the norm's own gradient, which is not a number for a row of nothing but padding.
        return x_ND * jax.lax.rsqrt(jnp.square(x_ND).sum(-1, keepdims=True) + 1e-12)


class JointSpanHead(nn.Module):
    """Answers as ELECTRA's own code has them, after XLNet: the end given the start.

    In training the end's scores are given the true start; else for each of the `beam`
    likeliest starts. Allowed are the tokens with `allowed` above 0.

    Outputs: start scores [N, L]; starts of the beam [N, K]; end scores [N, K, L], with K = 1
    in training; and the score that there is no answer [N].
    """

    config: ModelConfig
    beam: int = 20

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> dict[str, jax.Array]:
        allowed_NL = batch["allowed"] > 0
        hidden_NLD = hidden_NLD.astype(jnp.float32)

        def mask(scores: jax.Array, allowed: jax.Array) -> jax.Array:
            return jnp.where(allowed, scores, -1e9)

        start_NL = mask(scores(1, "start")(hidden_NLD)[..., 0], allowed_NL)
        if train:
            top_NK = jnp.maximum(batch["start"], 0)[:, None]
        else:
            top_NK = jax.lax.top_k(start_NL, min(self.beam, start_NL.shape[1]))[1]
        starts_NKD = jnp.take_along_axis(hidden_NLD, top_NK[..., None], axis=1)
        # The end's hidden layer over [token, start], as a sum: the two parts of one product.
        wide = JOINT_WIDTH
        token_NLW = scores(wide, "end_token")(hidden_NLD)
        start_NKW = scores(wide, "end_start")(starts_NKD)
        joint_NKLW = gelu(token_NLW[:, None] + start_NKW[:, :, None])
        end_NKL = scores(1, "end")(joint_NKLW)[..., 0]
        weights_NL = jax.nn.softmax(start_NL, axis=-1)
        start_ND = jnp.einsum("nl,nld->nd", weights_NL, hidden_NLD)
        answer_N2D = jnp.concatenate([start_ND, hidden_NLD[:, 0]], axis=-1)
        impossible_N = scores(1, "impossible")(gelu(scores(wide, "impossible_dense")(answer_N2D)))[
            ..., 0
        ]
        return {
            "start": start_NL,
            "starts": top_NK,
            "end": mask(end_NKL, allowed_NL[:, None]),
            "impossible": impossible_N,
        }
