"""One or two texts to a label, or to a number."""

import abc
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression, Ridge

from electra_jax.data.examples import Example, join_segments
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError, above, checked
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import RowHead
from electra_jax.tasks.task import (
    Answer,
    Judgement,
    Task,
    TaskConfig,
    label_number,
    label_set,
    one_cell,
    pooling_name,
    read_label,
)

LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class TextTaskConfig(TaskConfig):
    text: str = "text"  # column
    text_b: str = ""  # column of a second text
    label: str = "label"  # column
    pooling: str = checked("", pooling_name)  # of a row
    both_orders: bool = False  # train on pairs in both orders (of the official MRPC and STS-B)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.both_orders and not self.text_b:
            raise UsageError("task.both_orders needs a second text: set task.text_b")


class Record(NamedTuple):
    where: str
    text: str
    text_b: str | None
    label: Any  # a text, a number, or None


class TextTask(Task):
    """The base of tasks over one or two texts of a row."""

    inputs = ("text", "text_b")
    labels_in = ("label",)

    def parse(self, row: Row, labelled: bool) -> Record:
        c = self.config
        second = row.text(c.text_b) if c.text_b else None
        label = self.parse_label(row) if labelled else None
        return Record(row.where, row.text(c.text), second, label)

    @property
    def exported_as(self) -> str:
        return "ForSequenceClassification" if self.config.head == "default" else ""

    def parse_label(self, row: Row) -> Any:
        return read_label(row, self.config.label)

    def is_empty(self, record: Any) -> bool:
        second = record.text_b
        return super().is_empty(record) or (second is not None and not second.strip())

    def shown(self, record: Record) -> str:
        """What of a record people read."""
        return record.text if record.text_b is None else f"{record.text} ⏐ {record.text_b}"

    @abc.abstractmethod
    def target(self, record: Record) -> np.ndarray:
        """The target of a record."""

    def examples(
        self, records: Sequence[Any], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        firsts = tokenizer.encode([record.text for record in records])
        seconds: list[Any] = [None] * len(records)
        if self.config.text_b:
            seconds = tokenizer.encode([record.text_b for record in records])
        examples = []
        for index, (record, first, second) in enumerate(zip(records, firsts, seconds, strict=True)):
            targets = {"label": self.target(record)} if labelled else {}
            orders = [(first, second)]
            if train and self.config.both_orders:
                orders.append((second, first))
            for one, other in orders:
                tokens, types = join_segments(tokenizer, one, other, length)
                examples.append(Example([tokens], [types], targets, index))
        return examples


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(TextTaskConfig):
    name: str = "classification"
    positive: str = ""  # the label that F1 is of; empty: the last of the label set
    out_of_scope: str = ""  # the label of what is none of the others


class Classification(TextTask):
    """A label for each row."""

    name: ClassVar[str] = "classification"
    Config = ClassificationConfig
    metrics = ("accuracy", "f1", "macro_f1", "matthews", "in_scope_accuracy", "out_of_scope_recall")
    suffix = ".tsv"
    linear = True

    def fit(self, records: Sequence[Record]) -> None:
        self.state["labels"] = label_set(record.label for record in records)
        for field in ("positive", "out_of_scope"):
            label = getattr(self.config, field)
            if label and label not in self.labels:
                raise UsageError(f"task.{field}={label!r} is none of {', '.join(self.labels[:8])}")

    def target(self, record: Record) -> np.ndarray:
        return np.array(label_number(self.labels, record.label, record.where), np.int32)

    def head(self, model: ModelConfig) -> RowHead:
        official = self.config.head == "official"
        return RowHead(model, len(self.labels), self.config.pooling, official)

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        losses_B = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["label"])
        return (losses_B * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        answers = []
        for logits in outputs:
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
            order = np.argsort(-probabilities)[:5]
            answers.append(
                {
                    "label": self.labels[order[0]],
                    "score": float(probabilities[order[0]]),
                    "scores": {self.labels[i]: float(probabilities[i]) for i in order},
                }
            )
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        guesses = [answer["label"] for answer in answers]
        truth = [record.label for record in records]
        right = np.array([a == b for a, b in zip(guesses, truth, strict=True)])
        metrics = {
            "accuracy": float(right.mean()),
            "macro_f1": sklearn_metrics.f1_score(truth, guesses, average="macro", zero_division=0),
            "matthews": sklearn_metrics.matthews_corrcoef(truth, guesses),
        }
        if len(self.labels) == 2:
            positive = self.config.positive or self.labels[-1]
            metrics["f1"] = sklearn_metrics.f1_score(
                truth, guesses, pos_label=positive, zero_division=0
            )
        if self.config.out_of_scope:
            outside = np.array([label == self.config.out_of_scope for label in truth])
            for name, rows in (("in_scope_accuracy", ~outside), ("out_of_scope_recall", outside)):
                if rows.any():
                    metrics[name] = right[rows].mean()
        return {name: float(value) for name, value in metrics.items()}

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        [(label, _)] = Counter(record.label for record in train).most_common(1)
        return [{"label": label, "score": 1.0}] * len(records)

    def judge(self, answers: Sequence[Answer], records: Sequence[Record]) -> list[Judgement]:
        return [
            Judgement(
                self.shown(record), record.label, answer["label"],
                record.label == answer["label"], answer["score"],
                [(record.label, answer["label"])],
            )
            for answer, record in zip(answers, records, strict=True)
        ]  # fmt: skip

    def linear_answers(self, train: Sequence[Record], features: Any, new: Any) -> list[Answer]:
        """Logistic regression."""
        model = LogisticRegression(C=10.0, max_iter=1000)
        model.fit(features, [record.label for record in train])
        return [{"label": str(label), "score": 1.0} for label in model.predict(new)]

    def write(self, answers: Sequence[Answer], records: Sequence[Record], path: Path) -> None:
        """GLUE's submission format: index and prediction."""
        write_submission([answer["label"] for answer in answers], path)


@dataclasses.dataclass(frozen=True)
class RegressionConfig(TextTaskConfig):
    name: str = "regression"
    scale: float = checked(1.0, above(0))  # labels are divided by it


class Regression(TextTask):
    """A number for each row, by squared error."""

    name: ClassVar[str] = "regression"
    Config = RegressionConfig
    metrics = ("spearman", "pearson", "r2")
    suffix = ".tsv"
    linear = True

    def fit(self, records: Sequence[Record]) -> None:
        labels = [record.label for record in records]
        self.state["mean"] = float(np.mean(labels))

    def parse_label(self, row: Row) -> float:
        text = row.text(self.config.label)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:  # nor is NaN
            raise UsageError(f"{row.where}: label {text!r} is not a number of 32 bits")
        return value

    def target(self, record: Record) -> np.ndarray:
        return np.array(record.label / self.config.scale, np.float32)

    def head(self, model: ModelConfig) -> RowHead:
        return RowHead(model, 1, self.config.pooling, self.config.head == "official")

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        return (jnp.square(outputs[:, 0] - batch["label"]) * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        return [{"score": float(output[0]) * self.config.scale} for output in outputs]

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        guesses = np.array([answer["score"] for answer in answers])
        truth = np.array([record.label for record in records])
        if np.ptp(truth) == 0:  # all three are undefined
            return dict.fromkeys(self.metrics, 0.0)
        metrics = {"r2": float(sklearn_metrics.r2_score(truth, guesses))}
        if np.ptp(guesses) == 0:  # correlations are undefined
            return {"spearman": 0.0, "pearson": 0.0, **metrics}
        return {
            "spearman": float(scipy.stats.spearmanr(guesses, truth).statistic),
            "pearson": float(scipy.stats.pearsonr(guesses, truth).statistic),
            **metrics,
        }

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        return [{"score": self.state["mean"]}] * len(records)

    def judge(self, answers: Sequence[Answer], records: Sequence[Record]) -> list[Judgement]:
        """The answers beside their numbers; none is exact, and the worst are the farthest off."""
        errors = [abs(a["score"] - r.label) for a, r in zip(answers, records, strict=True)]
        most = max(errors, default=0.0) or 1.0
        return [
            Judgement(
                self.shown(record), f"{record.label:.4g}", f"{answer['score']:.4g}",
                error == 0, error / most,
            )
            for answer, record, error in zip(answers, records, errors, strict=True)
        ]  # fmt: skip

    def linear_answers(self, train: Sequence[Record], features: Any, new: Any) -> list[Answer]:
        """Ridge regression."""
        model = Ridge(alpha=1.0).fit(features, [record.label for record in train])
        return [{"score": float(value)} for value in model.predict(new)]

    def write(self, answers: Sequence[Answer], records: Sequence[Record], path: Path) -> None:
        """GLUE's submission format: index and prediction."""
        write_submission([f"{answer['score']:.3f}" for answer in answers], path)


def write_submission(predictions: Sequence[str], path: Path) -> None:
    """Writes a file as GLUE's server takes it: lines that end in a line feed, and no quoting.

    A tab or line break within a label would part columns or rows: a space stands for it.
    """
    rows = [f"{index}\t{one_cell(text)}\n" for index, text in enumerate(predictions)]
    path.write_text("index\tprediction\n" + "".join(rows), "utf-8", newline="\n")
