"""An answer as a span of a text, or none (SQuAD 1.1 and 2.0)."""

import collections
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from electra_jax.data.examples import Example
from electra_jax.data.labelled import Row
from electra_jax.data.segmentation import sentences
from electra_jax.errors import UsageError, at_least, checked
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import JointSpanHead, TokenHead
from electra_jax.tasks.answer_metrics import answer_words, best_of, exact_match, token_f1
from electra_jax.tasks.answer_spans import answer_text, cut_windows, token_span
from electra_jax.tasks.task import Answer, Task, TaskConfig

log = logging.getLogger(__name__)

NEVER = -1e9
IMPOSSIBLE_WEIGHT = 0.5  # of the official head's loss of answerability


@dataclasses.dataclass(frozen=True)
class QuestionAnsweringConfig(TaskConfig):
    name: str = "question_answering"
    question: str = "question"  # column
    context: str = "context"  # column
    answers: str = "answers"  # column of [{"text", "answer_start"}, …]
    question_length: int = checked(64, at_least(1))  # tokens, at most
    # Tokens from the start of one window of a long text to the next.
    stride: int = checked(128, at_least(1))
    answer_length: int = checked(30, at_least(1))  # tokens, at most
    candidates: int = checked(20, at_least(1))  # starts and ends that are tried


class Record(NamedTuple):
    where: str
    id: str
    question: str
    context: str
    answers: list[tuple[str, int]] | None  # none: it cannot be answered

    @property
    def text(self) -> str:
        return self.context


class QuestionAnswering(Task):
    """A span of the context for each question; EM and F1 as the official evaluation has them.

    Where there are questions without an answer, metrics are those at the threshold of best F1,
    as the official evaluation of SQuAD 2.0 finds it; it is kept with the model.
    """

    name: ClassVar[str] = "question_answering"
    Config = QuestionAnsweringConfig
    metrics = ("f1", "exact", "has_answer_f1", "no_answer_accuracy")
    inputs = ("question", "context")
    grouped_by = "title (or, without one, text)"
    suffix = ".json"

    def parse(self, row: Row, labelled: bool) -> Record:
        c = self.config
        answers = None
        if labelled:
            answers = []
            for text, start in read_answers(row, c.answers):
                if text.strip():  # no token stands for the spaces around it
                    start += len(text) - len(text.lstrip())
                    answers.append((text.strip(), start))
        id = row.fields.get("id")
        id = row.where if id is None else str(id)
        return Record(row.where, id, row.text(c.question), row.text(c.context), answers)

    def is_empty(self, record: Record) -> bool:
        return super().is_empty(record) or not record.question.strip()

    def group(self, row: Row) -> str:
        """Questions on one article, or text, are held out together."""
        return row.text("title") if row.fields.get("title") else row.text(self.config.context)

    def fit(self, records: Sequence[Record]) -> None:
        self.state["may_be_impossible"] = any(not record.answers for record in records)
        self.state["threshold"] = 0.0

    @property
    def exported_as(self) -> str:
        return "ForQuestionAnswering" if self.config.head == "default" else ""

    def head(self, model: ModelConfig) -> nn.Module:
        if self.config.head == "official":
            return JointSpanHead(model, self.config.candidates)
        return TokenHead(model, 2)

    def sample_batch(self) -> dict[str, jax.Array]:
        batch = super().sample_batch()
        return {**batch, "allowed": batch["tokens"][:, 0], "start": jnp.zeros(1, jnp.int32)}

    def examples(
        self, records: Sequence[Record], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        encode = self.tokenizer.encode
        questions = self._cut([record.question for record in records], length, labelled)
        contexts = encode([record.context for record in records])
        examples: list[Example] = []
        wrong: list[Record] = []
        unseen: list[Record] = []
        lost: list[Record] = []
        for index, (record, question, ids) in enumerate(
            zip(records, questions, contexts, strict=True)
        ):
            offsets = np.array(self.tokenizer.offsets(record.context), np.int32).reshape(-1, 2)
            span = None
            if labelled and record.answers:
                answer = find_answer(record)
                if answer is None:
                    wrong.append(record)
                    if train:
                        continue
                else:
                    span = token_span(offsets, answer)
                    if span is None:
                        unseen.append(record)
                        if train:
                            continue
            room = length - len(question) - 3
            if room < 1:
                raise UsageError(
                    f"train.length={length} leaves no room beside a question; raise it"
                )
            windows = cut_windows(len(ids), room, self.config.stride)
            examples += [
                self._window(question, ids, offsets, window, span, index, labelled)
                for window in windows
            ]
            if span and not any(x.start <= span[0] and span[1] < x.stop for x in windows):
                lost.append(record)
        for found, message in (
            (wrong, f"answers are not in their contexts{', not trained on' if train else ''}"),
            (unseen, "answers have nothing in them that the tokenizer keeps"),
            (lost, f"answers are whole in no row of train.length={length}"),
        ):
            if found:
                log.warning("%d %s (the first: %s)", len(found), message, found[0].where)
        if train and not examples:
            raise UsageError(f"no answer is in its context (the first: {records[0].where})")
        return examples

    def _cut(self, questions: Sequence[str], length: int, labelled: bool) -> list[list[int]]:
        """Ids of questions, which take half of a row at most; those that are cut are counted."""
        most = min(self.config.question_length, max(0, length - 3) // 2)
        ids = self.tokenizer.encode(questions)
        note = f"questions are cut to {most} tokens, half of train.length={length}"
        if most == self.config.question_length:
            note = f"questions are cut to task.question_length={most} tokens"
        self.count_cut(note, sum(len(question) > most for question in ids), labelled)
        return [question[:most] for question in ids]

    def _window(
        self,
        question: list[int],
        ids: list[int],
        offsets: np.ndarray,
        window: slice,
        span: tuple[int, int] | None,
        number: int,
        labelled: bool,
    ) -> Example:
        tokenizer = self.tokenizer
        before = len(question) + 2
        shown = ids[window]
        tokens = [tokenizer.cls_id, *question, tokenizer.sep_id, *shown, tokenizer.sep_id]
        types = np.zeros(len(tokens), np.int32)
        types[before:] = 1
        characters = np.full((2, len(tokens)), -1, np.int32)
        inside = slice(before, before + len(shown))
        characters[:, inside] = offsets[window].T
        allowed = np.zeros(len(tokens), np.int32)
        allowed[inside] = 1
        if self.config.head == "default":
            allowed[0] = 1  # [CLS] stands for no answer
        start = end = 0
        if span and window.start <= span[0] and span[1] < window.stop:
            start, end = (before + index - window.start for index in span)
        targets = {
            "allowed": allowed, "first_character": characters[0], "last_character": characters[1]
        }  # fmt: skip
        if labelled:
            targets.update(start=np.array(start, np.int32), end=np.array(end, np.int32))
        return Example([np.array(tokens, np.int32)], [types], targets, number)

    def loss(self, outputs: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        if self.config.head == "default":
            allowed_BL = batch["allowed"] > 0
            start_BL, end_BL = (jnp.where(allowed_BL, outputs[..., side], NEVER) for side in (0, 1))
            losses_B = cross_entropy(start_BL, batch["start"])
            losses_B += cross_entropy(end_BL, batch["end"])
            return (0.5 * losses_B * batch["weight"]).sum()
        possible_B = (batch["start"] > 0).astype(jnp.float32)
        # The beam holds the true start, first or alone, in training; at evaluation its best.
        is_start_BK = outputs["starts"] == batch["start"][:, None]
        end_BL = jnp.take_along_axis(outputs["end"], is_start_BK.argmax(-1)[:, None, None], axis=1)[
            :, 0
        ]
        losses_B = cross_entropy(outputs["start"], batch["start"])
        losses_B += cross_entropy(end_BL, batch["end"])
        losses_B *= 0.5 * possible_B
        losses_B += IMPOSSIBLE_WEIGHT * optax.sigmoid_binary_cross_entropy(
            outputs["impossible"], 1.0 - possible_B
        )
        return (losses_B * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Record]
    ) -> list[Answer]:
        best: list[tuple[float, str, float]] = [(NEVER, "", 0.0)] * len(records)
        none = [np.inf] * len(records)
        for output, example in zip(outputs, examples, strict=True):
            number = example.record
            candidates, no_answer, normaliser = self._candidates(output, example)
            none[number] = min(none[number], no_answer)
            for score, first, last in candidates:
                if score > best[number][0]:
                    text = answer_text(records[number].context, example, first, last)
                    best[number] = (score, text, float(np.exp(score - normaliser)))
        answers = []
        for record, (score, text, share), no_answer in zip(records, best, none, strict=True):
            margin = no_answer - score if self.config.head == "default" else no_answer
            answer = {
                "id": record.id, "span": text, "score": share, "no_answer_margin": float(margin)
            }  # fmt: skip
            answers.append({**answer, "text": self._decide(answer, self.state["threshold"])})
        return answers

    def _decide(self, answer: Answer, threshold: float) -> str:
        if self.state["may_be_impossible"] and answer["no_answer_margin"] > threshold:
            return ""
        return answer["span"]

    def _candidates(
        self, output: Any, example: Example
    ) -> tuple[list[tuple[float, int, int]], float, float]:
        """(score, first token, last token) of likely spans, and the score of no answer.

        Also the logarithm by which the scores become probabilities within the row.
        """
        c = self.config
        inside = example.targets["first_character"] >= 0
        size = len(inside)
        found = []
        if c.head == "default":
            start, end = (np.where(inside, output[:size, side], NEVER) for side in (0, 1))
            ends = np.argsort(-end)[: c.candidates]
            for first in np.argsort(-start)[: c.candidates]:
                for last in ends:
                    if first <= last < first + c.answer_length and inside[first] and inside[last]:
                        found.append((float(start[first] + end[last]), int(first), int(last)))
            allowed = np.append(0, np.flatnonzero(inside))  # as in the loss
            normaliser = sum(_log_sum_exp(output[allowed, side]) for side in (0, 1))
            return found, float(output[0, 0] + output[0, 1]), normaliser
        start = output["start"] - _log_sum_exp(output["start"])
        for index, first in enumerate(output["starts"][: c.candidates]):
            if first >= size or not inside[first]:
                continue
            end = output["end"][index] - _log_sum_exp(output["end"][index])
            reach = slice(first, min(size, first + c.answer_length))
            last = int(first + end[reach].argmax())
            found.append((float(start[first] + end[last]), int(first), last))
        return found, float(output["impossible"]), 0.0

    def calibrate(self, answers: Sequence[Answer], records: Sequence[Any]) -> list[Answer]:
        threshold = self.state["threshold"] = self._best_threshold(answers, records)
        return [{**answer, "text": self._decide(answer, threshold)} for answer in answers]

    def _best_threshold(self, answers: Sequence[Answer], records: Sequence[Any]) -> float:
        """The threshold of best F1, by going through all of them (the official evaluation)."""
        if not self.state["may_be_impossible"]:
            return 0.0
        margins = np.array([answer["no_answer_margin"] for answer in answers])
        gains = []  # of answering over not answering
        for answer, record in zip(answers, records, strict=True):
            truth = [text for text, _ in record.answers]
            gains.append(best_of(token_f1, answer["span"], truth) - (0.0 if truth else 1.0))
        order = np.argsort(margins, kind="stable")
        totals = np.concatenate([[0.0], np.cumsum(np.array(gains)[order])])
        totals[1:-1][np.diff(margins[order]) == 0] = -np.inf  # no threshold parts equal margins
        answered = int(totals.argmax())
        if answered == 0:
            return float(margins.min() - 1.0)
        return float(margins[order[answered - 1]])

    def score(self, answers: Sequence[Answer], records: Sequence[Any]) -> dict[str, float]:
        threshold = self._best_threshold(answers, records)
        metrics: dict[str, list[float]] = collections.defaultdict(list)
        for answer, record in zip(answers, records, strict=True):
            text = self._decide(answer, threshold)
            truth = [text for text, _ in record.answers]
            metrics["exact"].append(best_of(exact_match, text, truth))
            metrics["f1"].append(best_of(token_f1, text, truth))
            name = "has_answer_f1" if truth else "no_answer_accuracy"
            metrics[name].append(metrics["f1"][-1])
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """The sentence that shares most words with the question."""
        answers = []
        for record in records:
            words = set(answer_words(record.question))
            best = max(
                sentences(record.context) or [""], key=lambda s: len(words & set(answer_words(s)))
            )
            answers.append({"id": record.id, "span": best, "text": best, "no_answer_margin": 0.0})
        return answers

    def write(self, answers: Sequence[Answer], records: Sequence[Record], path: Path) -> None:
        """Writes what the official evaluation reads: id to text."""
        content = {answer["id"]: answer["text"] for answer in answers}
        if len(content) < len(answers):
            log.warning(
                "%d questions have the id of another, whose answer the file does not hold",
                len(answers) - len(content),
            )
        path.write_text(
            json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8", newline="\n"
        )


def read_answers(row: Row, column: str) -> list[tuple[str, int]]:
    """The texts of a question's answers and where they start; none if it is marked impossible.

    A list of objects, as in SQuAD's files, or an object of two lists, as the datasets library has
    it.

    Raises:
      UsageError: it is neither, or there is no such column.
    """
    value = row.value(column)
    marks = [row.fields.get(name) for name in ("impossible", "is_impossible")]
    if any(mark in (True, 1, "true", "True", "1") for mark in marks):
        return []
    try:
        if isinstance(value, dict):
            pairs = list(zip(value["text"], value["answer_start"], strict=True))
        else:
            pairs = [(answer["text"], answer["answer_start"]) for answer in value]
        return [(str(text), int(start)) for text, start in pairs]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{row.where}: column {column!r} is not a list of answers with text and answer_start"
        ) from error


def find_answer(record: Record) -> tuple[int, int] | None:
    """Where the first answer lies that is in the context where it says: [start, end)."""
    for text, start in record.answers or []:
        if start >= 0 and record.context[start : start + len(text)] == text:
            return start, start + len(text)
    return None


def _log_sum_exp(scores: np.ndarray) -> float:
    return float(scores.max() + np.log(np.exp(scores - scores.max()).sum()))
