"""Short summaries of long texts: sentences chosen from them, or written anew."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from rouge_score import rouge_scorer, tokenizers

from electra_jax.data.examples import Example, join_segments
from electra_jax.data.labelled import Row
from electra_jax.data.segmentation import join_sentences, sentences, words
from electra_jax.errors import UsageError, at_least, checked
from electra_jax.models.decoder import WritingHead
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import TokenHead
from electra_jax.tasks.task import Answer, Task, TaskConfig

log = logging.getLogger(__name__)

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclasses.dataclass(frozen=True)
class SummarizationConfig(TaskConfig):
    name: str = "extractive_summarization"
    source: str = "source"  # column: a list of sentences, or a text
    summary: str = "target"  # column: a text, or a list of summaries as good as each other
    label: str = ""  # column: 0 or 1 for each sentence; empty: those that together score best
    sentences: int = checked(1, at_least(1))  # of a summary, at most


class Record(NamedTuple):
    where: str
    sentences: list[str]
    summaries: list[str]
    labels: list[int]

    @property
    def text(self) -> str:
        return join_sentences(self.sentences)


class ExtractiveSummarization(Task):
    """The likeliest sentences, in their order; each is known by a [CLS] before it."""

    name: ClassVar[str] = "extractive_summarization"
    Config = SummarizationConfig
    metrics: ClassVar[tuple[str, ...]] = (*ROUGE, "oracle_rouge1", "oracle_rougeL")
    inputs = ("source",)

    def parse(self, row: Row, labelled: bool) -> Record:
        c = self.config
        sentences = read_sentences(row, c.source)
        if not labelled:
            return Record(row.where, sentences, [], [])
        value = row.value(c.summary)
        summaries = row.texts(c.summary) if isinstance(value, list) else [row.text(c.summary)]
        if not any(summary.strip() for summary in summaries):
            raise UsageError(f"{row.where}: no summary in column {c.summary!r}")
        labels: list[int] = []
        if c.label:
            labels = [read_choice(row, x) for x in row.texts(c.label)]
            if len(labels) != len(sentences):
                raise UsageError(
                    f"{row.where}: {len(sentences)} sentences but {len(labels)} labels"
                )
        return Record(row.where, sentences, summaries, labels)

    def fit(self, records: Sequence[Record]) -> None:
        if all(len(record.sentences) < 2 for record in records):
            raise UsageError(
                f"{records[0].where}: no text has two sentences, and there is nothing to choose; "
                f"where a script has no sentence marks, give column {self.config.source!r} as a "
                "list of sentences"
            )
        self.state["fitted"] = True

    def head(self, model: ModelConfig) -> nn.Module:
        return TokenHead(model, 1, self.config.head == "official")

    def examples(
        self, records: Sequence[Record], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        examples = []
        for index, record in enumerate(records):
            labels = [0] * len(record.sentences)
            if labelled:
                labels = record.labels or self._chosen_by_oracle(record)
            # Windows of whole sentences; one that is longer than a row is cut.
            tokens: list[int] = []
            targets: list[int] = []
            pieces = tokenizer.encode(record.sentences)
            for sentence, label in zip(pieces, labels, strict=True):
                kept = [tokenizer.cls_id, *sentence[: length - 2], tokenizer.sep_id]
                if tokens and len(tokens) + len(kept) > length:
                    examples.append(self._window(tokens, targets, index))
                    tokens, targets = [], []
                tokens += kept
                targets += [label] + [-1] * (len(kept) - 1)
            if not tokens:
                tokens, targets = [tokenizer.cls_id, tokenizer.sep_id], [-1, -1]
            examples.append(self._window(tokens, targets, index))
        return examples

    def _window(self, tokens: list[int], targets: list[int], number: int) -> Example:
        row = np.array(tokens, np.int32)
        return Example([row], [np.zeros_like(row)], {"labels": np.array(targets, np.int32)}, number)

    def _chosen_by_oracle(self, record: Record) -> list[int]:
        chosen = self._oracle(record)
        return [int(index in chosen) for index in range(len(record.sentences))]

    def _oracle(self, record: Record) -> frozenset[int]:
        return best_sentences(
            tuple(record.sentences), tuple(record.summaries), self.config.sentences
        )

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Each sentence's cross-entropy, summed over sentences."""
        counted_BL = (batch["labels"] >= 0) * batch["weight"][:, None]
        losses_BL = optax.sigmoid_binary_cross_entropy(
            outputs[..., 0], jnp.maximum(batch["labels"], 0).astype(jnp.float32)
        )
        return (losses_BL * counted_BL).sum()

    def count(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        return ((batch["labels"] >= 0) * batch["weight"][:, None]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        scores: list[list[float]] = [[] for _ in records]
        for output, example in zip(outputs, examples, strict=True):
            places = example.targets["labels"] >= 0
            scores[example.record] += output[: len(places), 0][places].tolist()
        answers = []
        for record, values in zip(records, scores, strict=True):
            best = np.argsort(-np.array(values), kind="stable")[: self.config.sentences]
            chosen = sorted(int(index) for index in best)
            text = join_sentences(record.sentences[index] for index in chosen)
            shares = (1 / (1 + np.exp(-np.array(values)))).tolist()
            answers.append({"text": text, "sentences": chosen, "scores": shares})
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        metrics = rouge([answer["text"] for answer in answers], records)
        best = [join_sentences(r.sentences[i] for i in sorted(self._oracle(r))) for r in records]
        oracle = rouge(best, records)
        return {**metrics, **{f"oracle_{n}": oracle[n] for n in ("rouge1", "rougeL")}}

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """The first sentences."""
        count = self.config.sentences
        return [{"text": join_sentences(record.sentences[:count])} for record in records]


def read_sentences(row: Row, column: str) -> list[str]:
    """A column of sentences; a text is cut where they end (see `data.segmentation`)."""
    value = row.value(column)
    return sentences(value) or [""] if isinstance(value, str) else row.texts(column)


def read_choice(row: Row, text: str) -> int:
    """Whether a sentence is chosen: 0 or 1, or a truth value.

    Raises:
      UsageError: it is something else.
    """
    choices = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
    if text.lower() not in choices:
        raise UsageError(f"{row.where}: the label of a sentence is 0 or 1, not {text!r}")
    return choices[text.lower()]


class RougeTokenizer(tokenizers.DefaultTokenizer):
    """Words of any script; of ASCII text the library's own, stems of English.

    The library's own would leave out every other character, and with it whole languages.
    """

    def __init__(self) -> None:
        super().__init__(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        tokenize = super().tokenize  # which comprehensions do not know before Python 3.12
        if text.isascii():
            return tokenize(text)
        return [
            stem for word in words(text) for stem in (tokenize(word) if word.isascii() else [word])
        ]


def rouge_of(names: Sequence[str]) -> rouge_scorer.RougeScorer:
    return rouge_scorer.RougeScorer(names, tokenizer=RougeTokenizer())


def rouge(texts: Sequence[str], records: Sequence[Record]) -> dict[str, float]:
    """ROUGE F-measures of the rouge-score library, of the nearest summary of each."""
    scorer = rouge_of(ROUGE)
    scores = [
        scorer.score_multi(record.summaries, text)
        for text, record in zip(texts, records, strict=True)
    ]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGE}


_SCORER = rouge_of(("rouge1",))


@functools.cache  # asked again at each evaluation
def best_sentences(
    sentences: tuple[str, ...], summaries: tuple[str, ...], count: int
) -> frozenset[int]:
    """The oracle: sentences added one by one, as long as each raises ROUGE-1 most."""
    chosen: set[int] = set()
    best = 0.0
    for _ in range(count):
        scored = []
        for index in set(range(len(sentences))) - chosen:
            text = join_sentences(sentences[i] for i in sorted({*chosen, index}))
            score = _SCORER.score_multi(summaries, text)["rouge1"].fmeasure
            scored.append((score, -index))
        if not scored or max(scored)[0] <= best:
            break
        best, index = max(scored)
        chosen.add(-index)
    return frozenset(chosen)


@dataclasses.dataclass(frozen=True)
class AbstractiveConfig(SummarizationConfig):
    name: str = "abstractive_summarization"
    layers: int = checked(2, at_least(1))  # of the decoder
    summary_length: int = checked(48, at_least(4))  # tokens, at most
    beam: int = checked(4, at_least(1))  # summaries kept while one is written


class AbstractiveSummarization(ExtractiveSummarization):
    """A small decoder over the encoder writes the summary."""

    name: ClassVar[str] = "abstractive_summarization"
    Config = AbstractiveConfig
    held_out_loss = False  # what is judged is written, and not taught
    metrics = ROUGE

    def fit(self, records: Sequence[Record]) -> None:
        self.state["fitted"] = True

    def examples(
        self, records: Sequence[Record], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        texts = tokenizer.encode([record.text for record in records])
        examples, cut = [], 0
        for index, (record, ids) in enumerate(zip(records, texts, strict=True)):
            tokens, types = join_segments(tokenizer, ids, None, length)
            # Trained on each of the summaries, judged by the first.
            summaries: Sequence[Any] = [None]
            if labelled:
                summaries = record.summaries if train else record.summaries[:1]
            for summary in summaries:
                targets = {}
                if summary is not None:
                    [written] = tokenizer.encode([summary])
                    cut += len(written) > self.config.summary_length - 2
                    target, _ = join_segments(tokenizer, written, None, self.config.summary_length)
                    targets["target"] = target
                examples.append(Example([tokens], [types], targets, index))
        if cut:
            log.warning(
                "%d summaries are cut to task.summary_length=%d tokens",
                cut, self.config.summary_length,
            )  # fmt: skip
        return examples

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        return rouge([answer["text"] for answer in answers], records)

    def head(self, model: ModelConfig) -> nn.Module:
        c, tokenizer = self.config, self.tokenizer
        return WritingHead(
            model, c.layers, c.summary_length, c.beam, tokenizer.cls_id, tokenizer.sep_id
        )

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        if "scores" not in outputs:
            return jnp.zeros(())
        labels_BT = batch["target"][:, : self.config.summary_length][:, 1:]
        losses_BT = optax.softmax_cross_entropy_with_integer_labels(
            outputs["scores"], jnp.maximum(labels_BT, 0)
        )
        return (losses_BT * (labels_BT >= 0) * batch["weight"][:, None]).sum()

    def count(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        labels_BT = batch["target"][:, : self.config.summary_length][:, 1:]
        return ((labels_BT >= 0) * batch["weight"][:, None]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        answers = []
        for output in outputs:
            ids = [int(id) for id in output["written"] if id >= 0]
            score = float(np.exp(output["log_probability"]))  # the geometric mean of its tokens'
            answers.append({"text": self.tokenizer.decode(ids), "score": score})
        return answers
