"""The contract of a task: its data, and what a run must know of it."""

import abc
import dataclasses
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from electra_jax.data.examples import Example
from electra_jax.data.labelled import Row, read_rows
from electra_jax.data.labelled_row import warn_of_joined_labels, with_labels
from electra_jax.data.source_list import split_list, unescape
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError, at_least, check_fields, checked, one_of, within
from electra_jax.models.encoder import POOLINGS, ModelConfig

log = logging.getLogger(__name__)

HEADS = ("default", "official")
pooling_name = one_of(("", *POOLINGS))  # empty: [CLS], and the mean for modern ones
Answer = dict[str, Any]


class Judgement(NamedTuple):
    """An answer beside the gold one, for people to read.

    Attributes:
      text: what was answered.
      gold, answer: as texts.
      right: whether the answer is the gold one.
      certainty: of the answer, from 0 to 1.
      labels: the (gold, answer) pairs of labels that are in it, to count which are confused.
    """

    text: str
    gold: str
    answer: str
    right: bool
    certainty: float = 0.0
    labels: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The labelled data of a task (see `electra_jax.data.labelled`), and the head."""

    name: str = ""  # the kind of task
    train: str = ""  # labelled rows to learn from: a file, or FORMAT:FILE
    validation: str = ""  # rows to measure on; empty: a share of train
    # Of train, held out where there is no `validation`.
    validation_share: float = checked(0.1, within("(0, 1)"))
    test: str = ""  # to be answered at the end; needs no labels
    columns: str = ""  # of csv and tsv files without a header, joined by commas (see `source_list`)
    train_rows: int = checked(0, at_least(0))  # as many of train, drawn by the seed; 0: all
    # That of Hugging Face's class, or the official code's.
    head: str = checked("default", one_of(HEADS))
    metric: str = ""  # that which chooses the best; empty: the task's first

    def __post_init__(self) -> None:
        check_fields("task", self)


class Task(abc.ABC):
    """A task: labelled records to examples, outputs to answers, answers to metrics.

    A subclass that sets a `name` of its own is found by `task.name` of a config (see
    `electra_jax.plugins`). Subclasses without one are bases of others.

    `records` are what `parse` makes of rows; `answers`, one for each record, are JSON
    objects. `labels` and whatever else is learnt from the training data at once (`fit`)
    is kept in `state`, which is saved with the model.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[TaskConfig]] = TaskConfig
    metrics: ClassVar[tuple[str, ...]] = ()  # the first chooses the best; higher is better
    inputs: ClassVar[tuple[str, ...]] = ("text",)  # fields of the config that name input columns
    labels_in: ClassVar[tuple[str, ...]] = ()  # fields of the config that name columns of labels
    whole_batch: ClassVar[bool] = False  # whether the loss compares the rows of a batch
    held_out_loss: ClassVar[bool] = True  # whether held-out records have a loss
    linear: ClassVar[bool] = False  # whether a linear model is compared (`linear_answers`)
    suffix: ClassVar[str] = ".jsonl"  # of a file of predictions
    grouped_by: ClassVar[str] = "content"  # what rows that are held out together have in common

    def __init__(self, config: Any, tokenizer: Tokenizer, state: Mapping[str, Any] | None = None):
        self.config, self.tokenizer = config, tokenizer
        self.state: dict[str, Any] = dict(state or {})
        self.cut: Counter[str] = (
            Counter()
        )  # how much was cut of records to be answered, and to what

    @property
    def metric(self) -> str:
        """The metric that chooses the best checkpoint."""
        return self.config.metric or self.metrics[0]

    @property
    def input_columns(self) -> list[str]:
        """The columns that an answer needs."""
        return [column for field in self.inputs if (column := getattr(self.config, field))]

    @property
    def column_names(self) -> list[str]:
        """The columns of csv and tsv files without a header."""
        return [unescape(name) for name in split_list(self.config.columns)]

    @property
    def exported_as(self) -> str:
        """The end of the name of Hugging Face's class for it; "" where there is none."""
        return ""

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @abc.abstractmethod
    def parse(self, row: Row, labelled: bool) -> Any:
        """A record of a row.

        Raises:
          UsageError: a column is missing or of another kind; names the line.
        """

    @abc.abstractmethod
    def fit(self, records: Sequence[Any]) -> None:
        """Learns the state, such as the label set, from training records."""

    @abc.abstractmethod
    def head(self, model: ModelConfig) -> nn.Module:
        """The head for an encoder of this shape: (hidden vectors, batch, train) → outputs."""

    @abc.abstractmethod
    def examples(
        self, records: Sequence[Any], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        """Rows of at most `length` tokens, in the order of their records.

        Args:
          records: at least one.
          length: in tokens, special ones among them.
          labelled: whether targets are wanted.
          train: whether they are to be trained on, or to be answered.
        """

    @abc.abstractmethod
    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The sum of losses over a batch."""

    @abc.abstractmethod
    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Any]
    ) -> list[Answer]:
        """An answer to each record, from the outputs for each example."""

    @abc.abstractmethod
    def score(self, answers: Sequence[Answer], records: Sequence[Any]) -> dict[str, float]:
        """Those of `metrics` that the data gives; at most 1, which is the best."""

    @abc.abstractmethod
    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """Answers that need no encoder: the baseline."""

    def judge(self, answers: Sequence[Answer], records: Sequence[Any]) -> list[Judgement]:
        """Each answer beside the gold one, for the report; none of a task that does not say how."""
        return []

    def linear_answers(self, train: Sequence[Any], features: Any, new: Any) -> list[Answer]:
        """Answers of a linear model, for a task with `linear`.

        Args:
          train: labelled records.
          features: of each of them, [records, features], dense or sparse.
          new: features of the records to answer.
        """
        raise NotImplementedError

    def calibrate(self, answers: Sequence[Answer], records: Sequence[Any]) -> Sequence[Answer]:
        """Sets what of the state is chosen on validation data, such as a threshold.

        Returns:
          The answers as they are with it.
        """
        return answers

    def sample_batch(self) -> dict[str, jax.Array]:
        """A batch of the least size, to make parameters with."""
        row = jnp.ones((1, 1, 8), jnp.int32)
        return {"tokens": row, "documents": row, "types": 0 * row}

    def count(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The number of terms in the loss of a batch."""
        return batch["weight"].sum()

    def group(self, row: Row) -> str:
        """Rows of one group are held out together."""
        return json.dumps(row.fields, sort_keys=True, default=str)

    def read(self, sources: str, labelled: bool = True) -> list[Any]:
        """The records of sources; empty texts are counted and logged."""
        rows = self.rows(sources, labelled)
        records = [self.parse(row, labelled) for row in rows]
        self._warn_of_empty(rows, records)
        return records

    def rows(self, sources: str, labelled: bool = True) -> list[Row]:
        # Of rows to be answered none may be left out.
        rows = list(read_rows(sources, self.column_names, skip_broken=labelled))
        if not labelled:
            return rows
        rows = with_labels(rows, [getattr(self.config, field) for field in self.labels_in])
        warn_of_joined_labels(label for row in rows for label in self.written_labels(row))
        return rows

    def written_labels(self, row: Row) -> list[str]:
        """The labels of a row as they are written, to compare them with others."""
        columns = [getattr(self.config, field) for field in self.labels_in]
        return [value for column in columns if isinstance(value := row.fields.get(column), str)]

    def read_splits(self, seed: int = 0) -> tuple[list[Any], list[Any]]:
        """Training and validation records; learns the state from all of `task.train`.

        Raises:
          UsageError: no training data is named, or nothing is left to train or to validate on.
        """
        rows, held_out = self.split_rows()
        train = [self.parse(row, True) for row in rows]
        validation = [self.parse(row, True) for row in held_out or ()]
        if not self.state:
            # A label so rare that all of its rows are held out is in the set, too.
            self.fit([*train, *validation])
        self._warn_of_empty([*rows, *(held_out or ())], [*train, *validation])
        if held_out is None:
            validation = self.read(self.config.validation)
        return self.draw(train, seed), validation

    def split_rows(self) -> tuple[list[Row], list[Row] | None]:
        """Training rows, and those held out of them where no validation data is named."""
        if not self.config.train:
            raise UsageError("task.train is empty: give --config.task.train=FILE")
        rows = self.rows(self.config.train)
        if self.config.validation:
            return rows, None
        share = self.config.validation_share
        groups = [self.group(row) for row in rows]
        is_held_out = [_share_of_hash(group) < share for group in groups]
        held_out = [row for row, out in zip(rows, is_held_out, strict=True) if out]
        rows = [row for row, out in zip(rows, is_held_out, strict=True) if not out]
        log.info("%-11s %s of the training rows, by hash", "validation", f"{len(held_out):,}")
        if not rows or not held_out:
            raise UsageError(
                f"task.validation_share={share} leaves {len(rows)} rows to train and "
                f"{len(held_out)} to validate on: rows of one {self.grouped_by} are held out "
                f"together, and there are rows of {len(set(groups))} ({groups[0]!r:.40}"
                f"{', …' if len(set(groups)) > 1 else ''}); give --config.task.validation=FILE"
            )
        return rows, held_out

    def draw(self, train: list[Any], seed: int) -> list[Any]:
        """As many training records as `task.train_rows` says."""
        if not 0 < self.config.train_rows < len(train):
            return train
        chosen = np.random.default_rng(seed).permutation(len(train))[: self.config.train_rows]
        return [train[index] for index in sorted(chosen)]

    def count_cut(self, what: str, count: int, labelled: bool) -> None:
        """Counts what is cut; logs it of labelled records, which come all at once."""
        if not count:
            return
        if labelled:
            log.warning("%d %s", count, what)
        else:
            self.cut[what] += count

    def _warn_of_empty(self, rows: Sequence[Row], records: Sequence[Any]) -> None:
        pairs = zip(rows, records, strict=True)
        warn_of_empty([row for row, record in pairs if self.is_empty(record)])

    def is_empty(self, record: Any) -> bool:
        """Whether a record lacks a text; one without a field `text` lacks none."""
        return not getattr(record, "text", "?").strip()

    def vector_pooling(self, model: ModelConfig) -> str:
        """The pooling of a text's vector from its tokens' (see `inference.finetuned`)."""
        return model.pooling or "mean"

    def row_pooling(self, model: ModelConfig) -> str:
        """The pooling of a row for the head, or of its vector if that is all there is."""
        return getattr(self.config, "pooling", "")

    def write(self, answers: Sequence[Answer], records: Sequence[Any], path: Path) -> None:
        """Writes answers in the task's own format; by default JSON lines."""
        lines = [json.dumps(answer) + "\n" for answer in answers]
        path.write_text("".join(lines), "utf-8", newline="\n")


def warn_of_empty(rows: Sequence[Row]) -> None:
    """Logs how many rows have no text."""
    if rows:
        log.warning("%d rows have no text (the first: %s)", len(rows), rows[0].where)


def read_label(row: Row, column: str) -> str:
    """A column that holds a label.

    Raises:
      UsageError: there is none of that name, or it is blank.
    """
    return row.label(column)


def label_set(labels: Iterable[str]) -> list[str]:
    """The labels in order; at least two.

    Raises:
      UsageError: there is but one.
    """
    found = sorted(set(labels))
    if len(found) < 2:
        raise UsageError(f"the training data has but one label, {found[0]!r}: nothing to learn")
    return found


def label_number(labels: Sequence[str], label: str, where: str) -> int:
    """The number of a label.

    Raises:
      UsageError: it is not in the set.
    """
    try:
        return labels.index(label)
    except ValueError:
        shown = ", ".join(labels[:8]) + (", …" if len(labels) > 8 else "")
        raise UsageError(f"{where}: label {label!r} is none of {shown}") from None


# Tabs and line ends of any kind: readers of tables take these for the end of a cell or a row.
_CELL_ENDS = re.compile("[\t-\r\x1c-\x1e\x85\u2028\u2029]+")


def one_cell(text: str) -> str:
    """A text that fits one cell of a table without quotes: tabs and line ends become a space."""
    return _CELL_ENDS.sub(" ", text).strip(" ")


def _share_of_hash(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48
