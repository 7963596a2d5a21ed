"""A label for each word: entities, chunks, slots. A word is known by its first piece."""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from seqeval import metrics as seqeval_metrics

from electra_jax.data.examples import Example
from electra_jax.data.labelled import Row
from electra_jax.data.labelled_row import clean_label
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError, checked, one_of
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import TokenHead
from electra_jax.tasks.label_schemes import (
    MARKS,
    SCHEMES,
    check_marks,
    check_names,
    check_scheme,
    guess_scheme,
    spans,
    to_bio,
)
from electra_jax.tasks.task import Answer, Judgement, Task, TaskConfig, label_set, one_cell

log = logging.getLogger(__name__)

_CLASS = re.compile(r"(\d+)(\.0+)?")


def class_names(names: str) -> str:
    """The check of a list of names (see `errors.Check`)."""
    found = split_names(names)
    if names and (len(found) < 2 or not all(found) or len(set(found)) < len(found)):
        return f"={names!r} must be two or more different names, joined by commas"
    return ""


def split_names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


@dataclasses.dataclass(frozen=True)
class TaggingConfig(TaskConfig):
    name: str = "tagging"
    words: str = "0"  # column: a list, or a text that is cut at spaces
    label: str = "-1"  # column, likewise
    # How labels mark spans; all become BIO; none: labels stand alone.
    scheme: str = checked("auto", one_of(SCHEMES))
    # Names of the classes from 0, joined by commas, where labels are their numbers.
    label_names: str = checked("", class_names)


class Record(NamedTuple):
    where: str
    words: list[str]
    labels: list[str] | None

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Words(NamedTuple):
    """Sentences cut into rows: of each row its tokens, first pieces, and first word."""

    tokens: np.ndarray
    firsts: np.ndarray
    start: int


def cut_words(tokenizer: Tokenizer, words: Sequence[str], length: int) -> list[Words]:
    """Rows [CLS] pieces [SEP] with all words of a sentence, none of them cut in two.

    A word without pieces is one unknown token; of one longer than a row, the start stays.
    """
    pieces = [p[: length - 2] or [tokenizer.unk_id] for p in tokenizer.encode_words(words)]
    rows: list[tuple[list[int], list[int], int]] = []
    tokens, start = [tokenizer.cls_id], 0
    firsts: list[int] = []
    for index, word in enumerate(pieces):
        if len(tokens) + len(word) >= length:
            rows.append((tokens, firsts, start))
            tokens, firsts, start = [tokenizer.cls_id], [], index
        firsts.append(len(tokens))
        tokens.extend(word)
    rows.append((tokens, firsts, start))
    return [
        Words(np.array([*t, tokenizer.sep_id], np.int32), np.array(f, np.int32), s)
        for t, f, s in rows
    ]


class Tagging(Task):
    """A label for each word; entity F1 is seqeval's."""

    name: ClassVar[str] = "tagging"
    Config = TaggingConfig
    metrics: ClassVar[tuple[str, ...]] = ("f1", "precision", "recall", "accuracy")
    inputs = ("words",)
    labels_in: ClassVar[tuple[str, ...]] = ("label",)
    suffix = ".conll"

    def parse(self, row: Row, labelled: bool) -> Record:
        c = self.config
        words = read_words(row, c.words)
        if not labelled:
            return Record(row.where, words, None)
        labels = [clean_label(label) for label in read_words(row, c.label)]
        if len(labels) != len(words):
            raise UsageError(f"{row.where}: {len(words)} words but {len(labels)} labels")
        if not all(labels):
            raise UsageError(f"{row.where}: a word without a label in column {c.label!r}")
        if c.label_names:
            labels = name_classes(labels, split_names(c.label_names), row.where)
        return Record(row.where, words, labels)

    def written_labels(self, row: Row) -> list[str]:
        return read_words(row, self.config.label) if self.config.label in row.fields else []

    def fit(self, records: Sequence[Record]) -> None:
        scheme = self.config.scheme
        labels = [(record.where, label) for record in records for label in record.labels or []]
        if scheme != "none":
            check_names(labels)
        if scheme == "auto":
            check_marks(labels)
            scheme = guess_scheme([record.labels or [] for record in records])
        self.state["scheme"] = scheme
        self.state["labels"] = label_set(x for record in records for x in self.truth(record))

    @property
    def metric(self) -> str:
        """The metric that chooses the best checkpoint; where nothing marks spans, accuracy."""
        if self.state.get("scheme") == "none" and not self.config.metric:
            return "accuracy"
        return super().metric

    @property
    def exported_as(self) -> str:
        return "ForTokenClassification" if self.config.head == "default" else ""

    def truth(self, record: Record) -> list[str]:
        """A record's labels, as BIO where they mark spans.

        Raises:
          UsageError: a label is not of the scheme; names its row.
        """
        labels, scheme = record.labels or [], self.state["scheme"]
        marks = "BI" if self.config.scheme in ("BIO", "IOB1") else MARKS
        check_scheme(labels, scheme, marks, record.where)
        return to_bio(labels, scheme)

    def head(self, model: ModelConfig) -> nn.Module:
        return TokenHead(model, len(self.labels), self.config.head == "official")

    def examples(
        self, records: Sequence[Record], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        examples = []
        numbers = {label: number for number, label in enumerate(self.labels)}
        unknown: Counter = Counter()
        for number, record in enumerate(records):
            labels = self.truth(record) if labelled else []
            for row in cut_words(tokenizer, record.words, length):
                # Which words a row has is read off its example when it is answered.
                targets = {"firsts": row.firsts}
                if labelled:
                    label_L = np.full(len(row.tokens), -1, np.int32)
                    for place, position in enumerate(row.firsts):
                        label = labels[row.start + place]
                        label_L[position] = numbers.get(label, -1)
                        unknown[label] += label not in numbers
                    targets["labels"] = label_L
                types = np.zeros_like(row.tokens)
                examples.append(Example([row.tokens], [types], targets, number))
        if +unknown:
            log.warning(
                "%d words have labels that the training data has not, and count as missed: %s",
                unknown.total(), ", ".join(sorted(+unknown)),
            )  # fmt: skip
        return examples

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        losses_BL = optax.softmax_cross_entropy_with_integer_labels(
            outputs, jnp.maximum(batch["labels"], 0)
        )
        return (losses_BL * self._counted(batch)).sum()

    def count(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        return self._counted(batch).sum()

    def _counted(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        return (batch["labels"] >= 0) * batch["weight"][:, None]

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        answers: list[Answer] = [{"words": r.words, "labels": [], "scores": []} for r in records]
        for logits_LC, example in zip(outputs, examples, strict=True):
            picked = logits_LC[example.targets["firsts"]]
            best = picked.argmax(-1)
            shifted = picked - picked.max(-1, keepdims=True)
            answer = answers[example.record]
            answer["labels"] += [self.labels[i] for i in best]
            answer["scores"] += (1 / np.exp(shifted).sum(-1)).tolist()
        for answer in answers:
            if self.state["scheme"] != "none":
                answer["spans"] = spans(answer["words"], answer["labels"])
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Record]) -> dict[str, float]:
        truth = [self.truth(record) for record in records]
        guesses = [answer["labels"] for answer in answers]
        metrics = {"accuracy": seqeval_metrics.accuracy_score(truth, guesses)}
        if self.state["scheme"] != "none":  # without spans there is no F1 of them
            metrics.update(span_metrics(truth, guesses))
        return {name: float(value) for name, value in metrics.items()}

    def judge(self, answers: Sequence[Answer], records: Sequence[Record]) -> list[Judgement]:
        """Sentences with the words whose labels differ; the most certain of these counts."""
        judgements = []
        for answer, record in zip(answers, records, strict=True):
            pairs = list(zip(self.truth(record), answer["labels"], strict=True))
            wrong = [index for index, (gold, guess) in enumerate(pairs) if gold != guess]
            gold, guess = (
                ", ".join(f"{record.words[index]}: {pairs[index][side]}" for index in wrong)
                for side in (0, 1)
            )
            certainty = max((answer["scores"][index] for index in wrong), default=0.0)
            judgements.append(Judgement(record.text, gold, guess, not wrong, certainty, pairs))
        return judgements

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """To each word the label it has most often in training; the commonest to others."""
        counts: dict[str, Counter] = {}
        everything: Counter = Counter()
        for record in train:
            for word, label in zip(record.words, self.truth(record), strict=True):
                counts.setdefault(word, Counter())[label] += 1
                everything[label] += 1
        usual = everything.most_common(1)[0][0]
        known = {word: count.most_common(1)[0][0] for word, count in counts.items()}
        return [{"labels": [known.get(word, usual) for word in r.words]} for r in records]

    def write(self, answers: Sequence[Answer], records: Sequence[Record], path: Path) -> None:
        """CoNLL: a word and its label a line, a blank line between sentences.

        A word that would not be read back as one is written as `as_cell` has it, and counted; of a
        sentence without words nothing is written.
        """
        sentences, altered = [], 0
        for answer, record in zip(answers, records, strict=True):
            cells = [as_cell(word) for word in record.words]
            altered += sum(cell != word for cell, word in zip(cells, record.words, strict=True))
            pairs = zip(cells, map(one_cell, answer["labels"]), strict=True)
            sentences.append("".join(f"{word}\t{label}\n" for word, label in pairs))
        path.write_text("\n".join(filter(None, sentences)), "utf-8", newline="\n")
        if altered:
            log.warning(
                "%s: %d words do not fit a cell (tabs, line breaks, outer spaces, or nothing), and "
                "are written with single spaces, or as _", path.name, altered,
            )  # fmt: skip
        if empty := sentences.count(""):
            log.warning("%s: %d sentences have no words, and are left out", path.name, empty)


def name_classes(labels: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    """Labels with the numbers of classes replaced by their names.

    Raises:
      UsageError: a label is neither the number nor the name of one.
    """
    named = []
    for label in labels:
        number = _CLASS.fullmatch(label)
        if number and int(number[1]) < len(names):
            label = names[int(number[1])]
        elif label not in names:
            raise UsageError(
                f"{where}: label {label!r} is none of the {len(names)} classes of "
                "task.label_names, which are numbered from 0"
            )
        named.append(label)
    return named


def as_cell(word: str) -> str:
    """A word as a cell of a CoNLL file: of one line, not blank, and no mark of a document."""
    cell = one_cell(word.replace("\ufeff", ""))
    if not cell.strip():
        return "_"
    return cell.lstrip("-") if cell.startswith(("-DOCSTART-", "-DOCEND-")) else cell


def read_words(row: Row, column: str) -> list[str]:
    """A column of words; a text is cut at spaces, of which a no-break space is none."""
    value = row.value(column)
    return re.findall(r"[^ \t\r\n]+", value) if isinstance(value, str) else row.texts(column)


def span_metrics(truth: list[list[str]], guesses: list[list[str]]) -> dict[str, Any]:
    """F1, precision and recall of whole spans, in BIO, as seqeval counts them."""
    return {
        "f1": seqeval_metrics.f1_score(truth, guesses, zero_division=0),
        "precision": seqeval_metrics.precision_score(truth, guesses, zero_division=0),
        "recall": seqeval_metrics.recall_score(truth, guesses, zero_division=0),
    }
