"""Scores of sentences under a pretraining objective, and the accuracy on minimal pairs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from electra_jax.data.examples import Batches, Example, join_segments
from electra_jax.data.minimal_pairs import MinimalPair
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.encoder import run_examples
from electra_jax.objectives.objective import Objective
from electra_jax.parallel.mesh import replicated, with_mesh
from electra_jax.system.progress import Progress

TIE = 1e-6  # scores whose relative difference is less are equal: float32 does not tell them apart
CHANCE = 0.5  # the accuracy of guessing which sentence of a pair is the good one


class Sentences(NamedTuple):
    """Sentences as rows of tokens, of like length side by side; equal rows are there once.

    Attributes:
      batches: of the distinct rows.
      rows_S: which of them each sentence is, int [sentences].
    """

    batches: Batches
    rows_S: np.ndarray


class GroupAccuracy(NamedTuple):
    """The accuracy on a paradigm's pairs."""

    phenomenon: str
    pairs: int
    accuracy: float


class PairAccuracy(NamedTuple):
    """The accuracy on minimal pairs: the share in which the good sentence has the higher score.

    A tie counts half, as a guess would: of sentences that are the same to the tokenizer, by case or
    by unknown words, and of scores that differ by rounding alone, as those of a model that knows
    only the frequencies of words do where the words are the same.

    Attributes:
      paradigms: by name.
      ties: pairs whose scores are equal to within `TIE`.
    """

    paradigms: dict[str, GroupAccuracy]
    ties: int

    @property
    def pairs(self) -> int:
        return sum(group.pairs for group in self.paradigms.values())

    @property
    def mean(self) -> float:
        """The headline: the mean over paradigms, however many pairs each has."""
        return float(np.mean([group.accuracy for group in self.paradigms.values()]))

    @property
    def phenomena(self) -> dict[str, tuple[int, float]]:
        """The number of paradigms of each phenomenon, and the mean over them."""
        groups: dict[str, list[float]] = {}
        for group in self.paradigms.values():
            groups.setdefault(group.phenomenon, []).append(group.accuracy)
        return {name: (len(found), float(np.mean(found))) for name, found in sorted(groups.items())}

    @property
    def metrics(self) -> dict[str, float]:
        """The headline beside that of a guess, as metrics of a run."""
        return {"minimal_pairs": self.mean, "minimal_pairs_baseline": CHANCE}

    @property
    def record(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            **self.metrics,
            "pairs": self.pairs,
            "ties": self.ties,
            "phenomena": {
                name: {"paradigms": count, "accuracy": accuracy}
                for name, (count, accuracy) in self.phenomena.items()
            },
            "paradigms": {name: group._asdict() for name, group in self.paradigms.items()},
        }


def encode_sentences(
    texts: Sequence[str],
    places: Sequence[str],
    tokenizer: Tokenizer,
    max_tokens: int,
    batch_size: int,
) -> Sentences:
    """Sentences as rows of [CLS] sentence [SEP].

    Args:
      texts: the sentences, at least one.
      places: what messages call each.
      tokenizer: of the model.
      max_tokens: of a sentence, without special tokens.
      batch_size: rows of a batch, over all devices.

    Raises:
      UsageError: a sentence without tokens, or with too many; names it.
    """
    numbers: dict[tuple[int, ...], int] = {}
    rows = []
    for ids, where in zip(tokenizer.encode(list(texts)), places, strict=True):
        if not ids:
            raise UsageError(f"{where}: the text is empty: there is nothing to look at")
        if len(ids) > max_tokens:
            raise UsageError(
                f"{where}: the text has {len(ids)} tokens, the model was trained on {max_tokens}; "
                "shorten it or leave it out"
            )
        rows.append(numbers.setdefault(tuple(ids), len(numbers)))
    distinct = list(numbers)
    order = sorted(range(len(distinct)), key=lambda number: len(distinct[number]))
    examples = []
    for number in order:
        tokens, types = join_segments(tokenizer, distinct[number], None, max_tokens + 2)
        examples.append(Example([tokens], [types], {}, number))
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    return Sentences(Batches(examples, batch_size, tokenizer.pad_id), rank[rows])


Score = Callable[..., np.ndarray]  # see `make_score`


def make_score(objective: Objective, mesh: Mesh) -> Score:
    """A function (parameters, `Sentences`, progress=False) → scores, float64 [sentences].

    A score is the sum of `Objective.score_tokens` over the tokens between [CLS] and [SEP]. All
    processes must call it; each gets all of the scores.

    Args:
      objective: of the model.
      mesh: that the parameters lie on.
    """
    apply = jax.jit(
        with_mesh(mesh, functools.partial(_score_rows, objective)), out_shardings=replicated(mesh)
    )

    def score(params: Any, sentences: Sentences, progress: bool = False) -> np.ndarray:
        batches = sentences.batches
        scores = np.zeros(batches.size)
        bar = Progress(batches.size, unit="sentences", shown=progress)
        try:
            with bar:
                for output, numbers in run_examples(apply, params, batches, mesh):
                    scores[numbers] = output[: len(numbers)]
                    bar.add(len(numbers))
        except flax.errors.ScopeParamNotFoundError as error:
            raise UsageError(
                f"the model lacks what objective.name={objective.name} scores sentences with: "
                f"{' '.join(str(error).split()).partition('. (')[0]}"
            ) from error
        if np.isnan(scores).any():
            raise UsageError("a score is not a number: the model has diverged")
        return scores[sentences.rows_S]

    return score


def _score_rows(objective: Objective, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The scores of a batch's rows, float32 [B]."""
    # Of the rows of an example there is one.
    rows = {name: batch[name][:, 0] for name in ("tokens", "documents", "types")}
    special = objective.special
    scores_BL = objective.score_tokens(params, rows)
    counted_BL = rows["documents"] > 0
    counted_BL &= (rows["tokens"] != special.cls) & (rows["tokens"] != special.sep)
    return jnp.where(counted_BL, scores_BL, 0.0).sum(axis=1)


class PairSet(NamedTuple):
    """Minimal pairs, ready to be scored.

    Attributes:
      pairs: the pairs.
      sentences: all good ones, and then all bad ones.
    """

    pairs: Sequence[MinimalPair]
    sentences: Sentences

    @classmethod
    def encode(
        cls, pairs: Sequence[MinimalPair], tokenizer: Tokenizer, max_tokens: int, batch_size: int
    ) -> "PairSet":
        """See `encode_sentences`."""
        texts = [*(pair.good for pair in pairs), *(pair.bad for pair in pairs)]
        places = [pair.where for pair in pairs] * 2
        return cls(pairs, encode_sentences(texts, places, tokenizer, max_tokens, batch_size))

    def accuracy(self, scores: np.ndarray) -> PairAccuracy:
        """The accuracy that follows from the scores of the sentences."""
        good, bad = np.split(scores, 2)
        ties = np.isclose(good, bad, rtol=TIE, atol=0.0)
        wins = np.where(ties, 0.5, good > bad)
        groups: dict[str, list[int]] = {}
        for number, pair in enumerate(self.pairs):
            groups.setdefault(pair.paradigm, []).append(number)
        paradigms = {
            name: GroupAccuracy(
                self.pairs[numbers[0]].phenomenon, len(numbers), float(wins[numbers].mean())
            )
            for name, numbers in groups.items()
        }
        return PairAccuracy(paradigms, int(ties.sum()))
