"""A small Transformer that writes text from an encoder's hidden states."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from electra_jax.models.dropout import Dropout
from electra_jax.models.encoder import Dense, ModelConfig, gelu, normal_init

NEVER = -1e9


class Attention(nn.Module):
    """Multi-head attention of x to a memory of S vectors, where `mask` lets it."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_NTD: jax.Array, memory_NSD: jax.Array, mask: jax.Array, train: bool = False
    ) -> jax.Array:
        c = self.config
        query, key, value = (
            Dense(c.hidden, kernel_init=normal_init, name=name)(y).reshape(
                *y.shape[:2], c.heads, c.hidden // c.heads
            )
            for name, y in (("query", x_NTD), ("key", memory_NSD), ("value", memory_NSD))
        )
        scores_NHTS = jnp.einsum("nthk,nshk->nhts", query, key) / math.sqrt(query.shape[-1])
        weights_NHTS = jax.nn.softmax(jnp.where(mask, scores_NHTS, NEVER))
        weights_NHTS = Dropout(c.attention_dropout, deterministic=not train)(weights_NHTS)
        mixed = jnp.einsum("nhts,nshk->nthk", weights_NHTS, value).reshape(x_NTD.shape)
        return Dense(c.hidden, kernel_init=normal_init, name="output")(mixed)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward; norms first."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_NTD: jax.Array, hidden_NLD: jax.Array, real_NL: jax.Array, train: bool = False
    ) -> jax.Array:
        c = self.config
        drop = Dropout(c.dropout, deterministic=not train)
        length = x_NTD.shape[1]
        causal_TT = jnp.tril(jnp.ones((length, length), bool))[None, None]

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, name=name)

        y_NTD = norm("self_norm")(x_NTD)
        x_NTD += drop(Attention(c, name="self_attention")(y_NTD, y_NTD, causal_TT, train))
        y_NTD = norm("cross_norm")(x_NTD)
        seen = real_NL[:, None, None]
        x_NTD += drop(Attention(c, name="cross_attention")(y_NTD, hidden_NLD, seen, train))
        y_NTD = Dense(c.intermediate, kernel_init=normal_init, name="wide")(
            norm("feedforward_norm")(x_NTD)
        )
        return x_NTD + drop(Dense(c.hidden, kernel_init=normal_init, name="narrow")(gelu(y_NTD)))


class Decoder(nn.Module):
    """Scores of the next token after each of a text so far, [N, T, V].

    Words are read and written with the encoder's table `word_VE`. With `place` the scores are
    those after that token alone, [N, 1, V].
    """

    config: ModelConfig
    layers: int
    longest: int

    @nn.compact
    def __call__(
        self,
        tokens_NT: jax.Array,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        word_VE: jax.Array,
        train: bool = False,
        place: jax.Array | int | None = None,
    ) -> jax.Array:
        c = self.config
        position = self.param("position", normal_init, (self.longest, c.hidden))
        x_NTD = Dense(c.hidden, kernel_init=normal_init, name="project_in")(word_VE[tokens_NT])
        x_NTD += position[: tokens_NT.shape[1]]
        for layer in range(self.layers):
            x_NTD = DecoderLayer(c, name=f"decoder_{layer}")(x_NTD, hidden_NLD, real_NL, train)
        if place is not None:
            x_NTD = jax.lax.dynamic_slice_in_dim(x_NTD, place, 1, axis=1)
        x_NTD = nn.LayerNorm(epsilon=1e-5, name="norm")(x_NTD)
        x_NTE = Dense(word_VE.shape[-1], kernel_init=normal_init, name="project_out")(x_NTD)
        bias_V = self.param("bias", nn.initializers.zeros, (word_VE.shape[0],))
        return jnp.einsum("nte,ve->ntv", x_NTE, word_VE) + bias_V


class WritingHead(nn.Module):
    """Learns to write `batch["target"]` [N, T]; writes by beam search where there is none.

    Outputs: `scores` of the target's tokens, [N, T - 1, V]; or, not in training, `written`
    [N, longest], padded with -1, and its `log_probability` [N], the mean of its tokens'.
    """

    config: ModelConfig
    layers: int
    longest: int  # tokens, with the first and the last
    beam: int
    start_id: int
    end_id: int

    @nn.compact
    def __call__(
        self,
        hidden_NLD: jax.Array,
        real_NL: jax.Array,
        batch: Mapping[str, jax.Array],
        train: bool = False,
    ) -> dict[str, jax.Array]:
        word_VE = batch["word_embeddings"]
        decoder = Decoder(self.config, self.layers, self.longest, name="decoder")
        hidden_NLD = hidden_NLD.astype(jnp.float32)
        outputs = {}
        if "target" in batch or self.is_initializing():
            # A batch is padded to the length of its texts; a summary is no longer than allowed.
            target_NT = batch.get("target", jnp.zeros((len(hidden_NLD), 2), jnp.int32))
            inputs_NT = jnp.maximum(target_NT[:, : self.longest][:, :-1], 0)
            outputs["scores"] = decoder(inputs_NT, hidden_NLD, real_NL, word_VE, train)
        if not train and not self.is_initializing():
            params = self.variables["params"]["decoder"]
            free = decoder.clone(parent=None, name=None)

            def following(tokens_NT: jax.Array, place: jax.Array) -> jax.Array:
                rows = len(tokens_NT) // len(hidden_NLD)
                scores_NTV: Any = free.apply(
                    {"params": params}, tokens_NT, jnp.repeat(hidden_NLD, rows, axis=0),
                    jnp.repeat(real_NL, rows, axis=0), word_VE, place=place,
                )  # fmt: skip
                return jax.nn.log_softmax(scores_NTV[:, 0])

            outputs["written"], outputs["log_probability"] = beam_search(
                following, len(hidden_NLD), self.beam, self.longest, self.start_id, self.end_id
            )
        return outputs


def beam_search(
    following: Callable[[jax.Array, jax.Array], jax.Array],
    rows: int,
    beam: int,
    longest: int,
    start_id: int,
    end_id: int,
) -> tuple[jax.Array, jax.Array]:
    """The likeliest texts, by mean log-probability of their tokens.

    A finished text stays in its beam as it is. No text repeats three tokens in a row.

    Args:
      following: (tokens [rows * beam, longest], place) → log-probabilities [rows * beam, V] of
        the token after that place.
      rows, beam, longest: texts, candidates of each, and tokens of each at most.
      start_id, end_id: what every text starts with, and ends with.

    Returns:
      Tokens [rows, longest], the start among them, padded with -1, and the means [rows].
    """
    tokens = jnp.full((rows, beam, longest), -1, jnp.int32).at[..., 0].set(start_id)
    # At first all candidates are the same: but one counts.
    sums = jnp.where(jnp.arange(beam) == 0, 0.0, NEVER) * jnp.ones((rows, 1))
    lengths = jnp.zeros((rows, beam), jnp.int32)  # without the start, which costs nothing
    done = jnp.zeros((rows, beam), bool)

    def step(place: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        tokens, sums, lengths, done = carry
        flat = jnp.maximum(tokens.reshape(rows * beam, longest), 0)
        scores = following(flat, place).reshape(rows, beam, -1)
        vocabulary = scores.shape[-1]
        scores = _forbid_repeats(scores, tokens, place)
        # A finished candidate goes on with one token of no cost, which is not written.
        idle = jnp.where(jnp.arange(vocabulary) == end_id, 0.0, NEVER)
        scores = jnp.where(done[..., None], idle, scores)
        totals = sums[..., None] + scores
        new_lengths = lengths + ~done
        means = totals / new_lengths[..., None]
        _, best = jax.lax.top_k(means.reshape(rows, -1), beam)
        parent, token = best // vocabulary, best % vocabulary

        def take(array: jax.Array) -> jax.Array:
            shape = (rows, beam) + (1,) * (array.ndim - 2)
            return jnp.take_along_axis(array, parent.reshape(shape), axis=1)

        was_done = take(done)
        tokens = take(tokens).at[..., place + 1].set(jnp.where(was_done, -1, token))
        sums = jnp.take_along_axis(totals.reshape(rows, -1), best, axis=1)
        return tokens, sums, take(new_lengths), was_done | (token == end_id)

    tokens, sums, lengths, done = jax.lax.fori_loop(
        0, longest - 1, step, (tokens, sums, lengths, done)
    )
    means = sums / lengths
    best = means.argmax(-1)
    return jnp.take_along_axis(tokens, best[:, None, None], axis=1)[:, 0], means.max(-1)


def _forbid_repeats(scores: jax.Array, tokens: jax.Array, place: jax.Array) -> jax.Array:
    """Rules out tokens that would end a triple that is there already."""
    longest = tokens.shape[-1]
    first, second = tokens[..., :-2], tokens[..., 1:-1]
    last = jax.lax.dynamic_index_in_dim(tokens, place, axis=-1)
    before = jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(place - 1, 0), axis=-1)
    seen = (first == before) & (second == last) & (jnp.arange(longest - 2) + 2 <= place)
    third = jnp.where(seen, tokens[..., 2:], -1)
    rows, beam, vocabulary = scores.shape
    forbidden = jnp.zeros((rows, beam, vocabulary + 1), bool)
    index = jnp.where(third < 0, vocabulary, third)
    forbidden = jax.vmap(jax.vmap(lambda row, i: row.at[i].set(True)))(forbidden, index)
    return jnp.where(forbidden[..., :vocabulary], NEVER, scores)
