"""A pretrained model in use: load it, score texts, and see which tokens look replaced."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electra_jax.config import PretrainConfig, build_objective
from electra_jax.data.minimal_pairs import MinimalPair
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.encoder import PretrainedEncoder, embed
from electra_jax.inference.scoring import (
    PairAccuracy,
    PairSet,
    Score,
    encode_sentences,
    make_score,
)
from electra_jax.interop import huggingface
from electra_jax.interop.hub import local_model
from electra_jax.interop.tensor_checks import check_room
from electra_jax.models.electra import GeneratorConfig, init_params, unstack_params
from electra_jax.models.encoder import ModelConfig
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.run_directory import TOKENIZER, check_config, read_config
from electra_jax.training.checkpoint import FOLDER, Checkpoints, holds_checkpoint

LONGEST_ROW = 512  # of an imported model, whose training rows are not known


class TokenReport(NamedTuple):
    """The outputs of the two networks for one token."""

    piece: str
    replaced: float  # the discriminator's probability that it was replaced
    suggestions: list[tuple[str, float]]  # the generator's likeliest tokens there


@dataclasses.dataclass(repr=False)
class PretrainedModel:
    """A pretrained model with its tokenizer."""

    config: PretrainConfig
    params: dict
    tokenizer: Tokenizer
    step: int

    def __post_init__(self) -> None:
        self._electra = self.config.electra
        self._inspect = jax.jit(self._inspect_arrays)

    def __repr__(self) -> str:
        objective, model = self.config.objective.name, self.config.model
        return (
            f"<{type(self).__name__}: {objective}, {model.architecture}, {model.layers} layers of "
            f"{model.hidden}, {self.tokenizer.vocab_size:,} pieces, step {self.step:,}>"
        )

    @property
    def devices(self) -> list[jax.Device]:
        """The devices that hold the parameters."""
        return list(jax.tree.leaves(self.params)[0].sharding.device_set)

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that were trained on: the row length less [CLS] and [SEP]."""
        return self.config.data.length - 2

    @property
    def encoder(self) -> PretrainedEncoder:
        """The main network without its head."""
        params = unstack_params(self.config.electra, self.params)
        embeddings = dict(params["embeddings"])
        if "embedding_delta" in params:
            embeddings["word"] = embeddings["word"] + params["embedding_delta"]
        return PretrainedEncoder(
            dataclasses.replace(self.config.model, scan=False),
            {"embeddings": embeddings, "encoder": params["discriminator"]["encoder"]},
            self.tokenizer,
            self.config.data.length if self.config.data.store else self.config.model.max_positions,
        )

    def embed(self, texts: Sequence[str], pooling: str = "", progress: bool = False) -> np.ndarray:
        """See `inference.encoder.embed`; by default pooled as the model was trained."""
        length, known = self.config.data.length, self.config.model.pooling
        return embed(self.encoder, texts, length, pooling or known or "mean", progress)

    def inspect(self, text: str, suggestions: int = 3) -> list[TokenReport]:
        """For each token, whether it looks replaced and what the generator would put there.

        The generator sees the text with that one token masked.

        Raises:
          UsageError: no token in the text, or more than the model was trained on.
        """
        if "generator" not in self.params or "classifier" not in self.params["discriminator"]:
            raise UsageError(
                "the model lacks a generator or a discriminator's head: nothing to ask"
            )
        row_L, documents_L = self._row(text)
        ids = row_L[1 : documents_L.sum() - 1].tolist()
        replaced_L, top_LV, tokens_LV = jax.device_get(
            self._inspect(self.params, row_L, documents_L)
        )
        return [
            TokenReport(
                piece,
                float(replaced_L[position]),
                [
                    (self.tokenizer.pieces([int(token)])[0], float(probability))
                    for token, probability in zip(
                        tokens_LV[position][:suggestions],
                        top_LV[position][:suggestions],
                        strict=True,
                    )
                ],
            )
            for position, piece in enumerate(self.tokenizer.pieces(ids), start=1)
        ]

    def _row(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """[CLS] text [SEP] and padding, and which of it is real, int32 [L]."""
        [ids] = self.tokenizer.encode([text])
        if not ids:
            raise UsageError("the text is empty: there is nothing to look at")
        if len(ids) > self.max_tokens:
            raise UsageError(
                f"the text has {len(ids)} tokens, the model was trained on {self.max_tokens}; "
                "shorten it"
            )
        row_L = np.full(self.config.data.length, self.tokenizer.pad_id, np.int32)
        row_L[: len(ids) + 2] = [self.tokenizer.cls_id, *ids, self.tokenizer.sep_id]
        documents_L = np.arange(len(row_L)) < len(ids) + 2
        return row_L, documents_L.astype(np.int32)

    def score(self, texts: Sequence[str]) -> list[float]:
        """The score of each text under the model's objective: the higher, the likelier.

        The sum over its tokens of `Objective.score_tokens`: of log P(original) of a
        discriminator, the pseudo-log-likelihood of a masked language model, and of an `electric`
        model that up to a constant of the text's length.

        Raises:
          UsageError: a text that is empty or longer than the model was trained on; or the model
            lacks the head of its objective, or the objective has no scores.
        """
        if not texts:
            return []
        places = [f"text {number}" for number in range(1, len(texts) + 1)]
        rows = self._rows(len(texts))
        sentences = encode_sentences(texts, places, self.tokenizer, self.max_tokens, rows)
        return self._score(self.params, sentences).tolist()

    def pair_accuracy(self, pairs: Sequence[MinimalPair], progress: bool = False) -> PairAccuracy:
        """The accuracy on minimal pairs by `score`.

        Raises:
          UsageError: see `score`.
        """
        rows = self._rows(2 * len(pairs))
        encoded = PairSet.encode(pairs, self.tokenizer, self.max_tokens, rows)
        return encoded.accuracy(self._score(self.params, encoded.sentences, progress))

    @functools.cached_property
    def _score(self) -> Score:
        objective = build_objective(self.config, self.tokenizer)
        return make_score(objective, make_mesh(MeshConfig(), self.devices))

    def _rows(self, texts: int) -> int:
        """Rows of a batch of so many texts, a multiple of the devices."""
        devices = len(self.devices)
        return -(-min(texts, self.config.eval.batch_size) // devices) * devices

    def _inspect_arrays(
        self, params: Any, row_L: jax.Array, documents_L: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        variables = {"params": params}
        types = jnp.zeros_like(row_L)
        logits_L = self._electra.apply(
            variables, row_L[None], documents_L[None], types[None], method="discriminate"
        )[0]

        def suggest(position: jax.Array) -> tuple[jax.Array, jax.Array]:
            masked = row_L.at[position].set(self.tokenizer.mask_id)
            logits: Any = self._electra.apply(
                variables,
                masked[None],
                documents_L[None],
                types[None],
                position[None, None],
                method="generate",
            )
            # A vocabulary that is padded has ids without a piece.
            logits_V = logits.whole()[0, 0, : self.tokenizer.vocab_size]
            return jax.lax.top_k(jax.nn.softmax(logits_V), 10)

        # One position after another: a row of logits, not a square of them, is in memory.
        top_LV, tokens_LV = jax.lax.map(suggest, jnp.arange(row_L.shape[0]), batch_size=8)
        return jax.nn.sigmoid(logits_L), top_LV, tokens_LV


def load_pretrained(path: str | Path, checkpoint: str = "best") -> PretrainedModel:
    """Loads a model from a run directory, or from an exported or Hugging Face one.

    Args:
      path: the directory, or `hub:NAME[@REVISION]` for one of the Hugging Face hub.
      checkpoint: "best", "last" or a step, of a run directory.

    Raises:
      UsageError: not a run directory, or no such checkpoint.
    """
    path = local_model(path)
    if not holds_checkpoint(path) and huggingface.is_hugging_face(path):
        return load_hugging_face(path)
    config = read_config(path)
    with Checkpoints(path, read_only=True) as checkpoints:
        step = checkpoints.choose(checkpoint)
        record = checkpoints.record_at(step)
        check_config(config, record, path)
        config = dataclasses.replace(config, model=config.model.anywhere)
        check_room(config.model, (Path(path) / FOLDER / str(step)).rglob("*"))
        electra = config.electra
        shapes = jax.eval_shape(lambda key: init_params(electra, key), jax.random.key(0))
        params = checkpoints.restore_params(step, shapes)
    tokenizer = load_tokenizer(Path(path) / TOKENIZER)
    check_tokenizer(tokenizer, record, config.model.vocab_size, path)
    return PretrainedModel(config, params, tokenizer, step)


def check_tokenizer(
    tokenizer: Tokenizer, record: Mapping[str, Any], vocab_size: int, workdir: str | Path
) -> None:
    """Checks that the tokenizer in a run directory is that of its checkpoint.

    Args:
      record: of the checkpoint; those of version 0.1 do not name the tokenizer.
      vocab_size: of the model, which may have more ids than the tokenizer.

    Raises:
      UsageError: it is another one.
    """
    trained = record.get(TOKENIZER, tokenizer.identity)
    if tokenizer.identity != trained or tokenizer.vocab_size > vocab_size:
        raise UsageError(
            f"{Path(workdir) / TOKENIZER} is not the tokenizer that the run was trained with: "
            "copy that one there"
        )


def read_shape(path: str | Path) -> tuple[ModelConfig, GeneratorConfig | None]:
    """The shape of a model, and that of its generator; None if it has none.

    Raises:
      UsageError: see `load_pretrained`.
    """
    path = local_model(path)
    if huggingface.is_hugging_face(path):
        read = huggingface.read_model(path)
        return read.model, read.generator
    config = read_config(path)
    return config.model, config.generator if config.generator.kind == "transformer" else None


def imported_config(
    model: ModelConfig, generator: GeneratorConfig, objective: str = "electra", length: int = 0
) -> PretrainConfig:
    """The config of a model whose training is not known: that of the published Small.

    Args:
      model: its shape.
      generator: its generator's, or that of a fresh one.
      objective: its name.
      length: tokens of a text at most; 0: not known.
    """
    length = min(model.max_positions, length or LONGEST_ROW)
    layout = "pair" if model.block.rotary or model.token_types > 1 else "packed"
    return PretrainConfig(
        model=model,
        generator=generator,
        objective=ObjectiveConfig(name=objective),
        data=DataConfig(length=length, layout=layout),
    )


def load_hugging_face(
    path: str | Path,
    generator: str | Path | None = None,
    special_tokens: Mapping[str, str] | Sequence[str] = (),
) -> PretrainedModel:
    """Loads a Hugging Face directory; heads and a generator that it lacks are missing.

    A masked language model is one of the objective `mlm`, beside a generator of `replace_mlm`.

    Raises:
      UsageError: see `huggingface.read_model`.
    """
    read = huggingface.read_model(path, generator, special_tokens)
    shares = read.generator
    if shares is None:
        modern = read.model.architecture == "modern"
        shares = GeneratorConfig(width=1.0, depth=0.25) if modern else GeneratorConfig()
    objective = "electra"
    if read.masked_lm:
        objective = "replace_mlm" if read.generator else "mlm"
    if objective == "mlm":
        shares = dataclasses.replace(shares, kind="none")
    config = imported_config(read.model, shares, objective, read.length)
    return PretrainedModel(config, jax.tree.map(jnp.asarray, read.params), read.tokenizer, step=0)
