"""One of several candidates: the next reply of a dialogue, an answer to a question."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import optax

from electra_jax.data.examples import Example, join_segments
from electra_jax.data.labelled import Row
from electra_jax.data.labelled_row import clean_label
from electra_jax.data.segmentation import space_out
from electra_jax.errors import UsageError, checked
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import RowHead
from electra_jax.tasks.task import Answer, Task, TaskConfig, pooling_name, read_label

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass(frozen=True)
class ChoiceConfig(TaskConfig):
    name: str = "choice"
    text: str = "text"  # column of what comes before
    options: str = "options"  # column: a list, of the same size in all rows
    label: str = "label"  # column: of all rows a letter from A, a number from 0, or the option
    pooling: str = checked("", pooling_name)  # of a row


class Record(NamedTuple):
    where: str
    text: str
    options: list[str]
    label: str | None


def named(record: Record) -> list[str]:
    """The options as labels name them."""
    return [clean_label(option) for option in record.options]


class Choice(Task):
    """The best of each row's candidates."""

    name: ClassVar[str] = "choice"
    Config = ChoiceConfig
    metrics = ("accuracy", "mrr")
    inputs = ("text", "options")
    labels_in = ("label",)

    def parse(self, row: Row, labelled: bool) -> Record:
        c = self.config
        options = row.texts(c.options)
        expected = self.state.get("options", len(options))
        if len(options) != expected or len(options) < 2:
            raise UsageError(
                f"{row.where}: {len(options)} options, where {max(expected, 2)} are expected"
            )
        label = read_label(row, c.label) if labelled else None
        return Record(row.where, row.text(c.text), options, label)

    def is_empty(self, record: Record) -> bool:
        return super().is_empty(record) or not all(option.strip() for option in record.options)

    def fit(self, records: Sequence[Record]) -> None:
        self.state["options"] = len(records[0].options)
        for record in records:
            if len(record.options) != self.state["options"]:
                raise UsageError(
                    f"{record.where}: {len(record.options)} options, where the first row has "
                    f"{self.state['options']}"
                )
        # An option that reads "2" is not the number 2: labels are of one kind, that of most.
        texts = sum(record.label in named(record) for record in records)
        self.state["by_text"] = texts > len(records) / 2

    def number(self, record: Record) -> int:
        """The place of the right option.

        Raises:
          UsageError: the label names none.
        """
        label, number = record.label or "", -1
        if self.state["by_text"]:
            number = named(record).index(label) if label in named(record) else -1
        elif label.isdecimal():
            number = int(label)
        elif len(label) == 1 and label.upper() in LETTERS:
            number = LETTERS.index(label.upper())
        if not 0 <= number < len(record.options):
            raise UsageError(
                f"{record.where}: label {label!r} names none of {len(record.options)} options"
            )
        return number

    @property
    def exported_as(self) -> str:
        return "ForMultipleChoice" if self.config.head == "default" else ""

    def head(self, model: ModelConfig) -> RowHead:
        return RowHead(model, 1, self.config.pooling, self.config.head == "official")

    def examples(
        self, records: Sequence[Record], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        texts = tokenizer.encode([record.text for record in records])
        flat = iter(tokenizer.encode([x for record in records for x in record.options]))
        examples = []
        for index, (record, text) in enumerate(zip(records, texts, strict=True)):
            tokens, types = [], []
            for _ in record.options:
                option = next(flat)
                # Of a long dialogue the end matters most.
                room = max(length - 3 - len(option), (length - 3) // 2)
                row, kinds = join_segments(tokenizer, text[-room:], option, length)
                tokens.append(row)
                types.append(kinds)
            targets = {"label": np.array(self.number(record), np.int32)} if labelled else {}
            examples.append(Example(tokens, types, targets, index))
        return examples

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        losses_B = optax.softmax_cross_entropy_with_integer_labels(outputs[..., 0], batch["label"])
        return (losses_B * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        answers = []
        for logits, record in zip(outputs, records, strict=True):
            shares = np.exp(logits[:, 0] - logits.max())
            shares /= shares.sum()
            best = int(shares.argmax())
            answers.append({"label": best, "text": record.options[best], "scores": shares.tolist()})
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        ranks = []
        for answer, record in zip(answers, records, strict=True):
            scores = np.array(answer["scores"])
            # Ties count against it.
            ranks.append(int((scores >= scores[self.number(record)]).sum()))
        return {
            "accuracy": float(np.mean([rank == 1 for rank in ranks])),
            "mrr": float(np.mean([1 / rank for rank in ranks])),
        }

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """The candidate that shares most words with what comes before."""
        answers = []
        for record in records:
            words = set(space_out(record.text.lower()).split())
            options = [space_out(option.lower()).split() for option in record.options]
            shares = [len(words & set(option)) / (1 + len(option)) for option in options]
            # Earlier candidates win ties.
            scores = [share - 1e-6 * index for index, share in enumerate(shares)]
            answers.append({"label": int(np.argmax(scores)), "scores": scores})
        return answers
