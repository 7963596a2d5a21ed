"""The intent of an utterance and, jointly, the slots its words fill."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from electra_jax.data.examples import Example
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError, checked
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import RowAndTokenHead
from electra_jax.tasks.tagging import Tagging, TaggingConfig
from electra_jax.tasks.task import Answer, Task, label_number, label_set, pooling_name, read_label


@dataclasses.dataclass(frozen=True)
class IntentSlotsConfig(TaggingConfig):
    name: str = "intent_slots"
    words: str = "tokens"
    label: str = "slots"
    intent: str = "intent"  # column
    pooling: str = checked("", pooling_name)  # of a row


class Record(NamedTuple):
    where: str
    words: list[str]
    labels: list[str] | None
    intent: str | None

    @property
    def text(self) -> str:
        return " ".join(self.words)


class IntentSlots(Tagging):
    """An intent for each row and a slot for each word, from one encoder."""

    name: ClassVar[str] = "intent_slots"
    Config = IntentSlotsConfig
    metrics: ClassVar[tuple[str, ...]] = (
        "exact", "intent_accuracy", "slot_f1", "slot_accuracy",
    )  # fmt: skip
    labels_in = ("label", "intent")
    suffix = ".jsonl"
    metric = Task.metric

    def written_labels(self, row: Row) -> list[str]:
        intent = row.fields.get(self.config.intent)
        return [*super().written_labels(row), *([intent] if isinstance(intent, str) else [])]

    def parse(self, row: Row, labelled: bool) -> Any:
        record = super().parse(row, labelled)
        intent = read_label(row, self.config.intent) if labelled else None
        return Record(record.where, record.words, record.labels, intent)

    @property
    def exported_as(self) -> str:
        return ""

    def fit(self, records: Sequence[Any]) -> None:
        super().fit(records)
        self.state["intents"] = label_set(record.intent for record in records)

    def head(self, model: ModelConfig) -> RowAndTokenHead:
        if self.config.head == "official":
            raise UsageError("task.head=official: the official code has no joint head")
        return RowAndTokenHead(
            model, len(self.state["intents"]), len(self.labels), self.config.pooling
        )

    def examples(
        self, records: Sequence[Any], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        examples = []
        for example in super().examples(records, length, labelled, train):
            record = records[example.record]
            if labelled:
                intent = label_number(self.state["intents"], record.intent, record.where)
                example.targets["intent"] = np.array(intent, np.int32)
            examples.append(example)
        return examples

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Each example's intent, and the mean over its words' slots."""
        intents_BC, slots_BLC = outputs
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        losses_B = cross_entropy(intents_BC, batch["intent"])
        counted_BL = (batch["labels"] >= 0).astype(jnp.float32)
        slot_losses_BL = cross_entropy(slots_BLC, jnp.maximum(batch["labels"], 0))
        losses_B += (slot_losses_BL * counted_BL).sum(1) / jnp.maximum(counted_BL.sum(1), 1.0)
        return (losses_B * batch["weight"]).sum()

    def count(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        return batch["weight"].sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Any]
    ) -> list[Answer]:
        answers = super().answers([slots for _, slots in outputs], examples, records)
        for (logits, _), example in zip(outputs, examples, strict=True):
            answer = answers[example.record]
            # Of a long utterance in several rows the first tells the intent.
            if "intent" not in answer:
                shifted = logits - logits.max()
                answer["intent"] = self.state["intents"][int(logits.argmax())]
                answer["intent_score"] = float(1 / np.exp(shifted).sum())
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Any]) -> dict[str, float]:
        slots = super().score(answers, records)
        intents = [a["intent"] == r.intent for a, r in zip(answers, records, strict=True)]
        exact = [
            right and answer["labels"] == self.truth(record)
            for right, answer, record in zip(intents, answers, records, strict=True)
        ]
        return {
            "exact": float(np.mean(exact)),
            "intent_accuracy": float(np.mean(intents)),
            # Without spans there is no F1 of them.
            **{f"slot_{name}": slots[name] for name in ("f1", "accuracy") if name in slots},
        }

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        answers = super().baseline(train, records)
        intents = [record.intent for record in train]
        usual = max(set(intents), key=lambda x: (intents.count(x), x))
        return [{**answer, "intent": usual} for answer in answers]

    def write(self, answers: Sequence[Answer], records: Sequence[Any], path: Path) -> None:
        super(Tagging, self).write(answers, records, path)
