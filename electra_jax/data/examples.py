"""Labelled examples as padded batches.

The batch of a step is a pure function of (examples, seed, step), as in pretraining. Rows of
like length share a batch, so that short texts are not mostly padding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from electra_jax.data.sampler import Rows
from electra_jax.data.tokenizer import Tokenizer

QUANTILES = (0.5, 0.85, 1.0)  # of the lengths of rows; a program is compiled for each
MULTIPLE = 8  # lengths are rounded up to
# For inference, whose programs are quickly compiled, and found in the cache by the next command.
FIXED_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
LONG_MULTIPLE = 512  # beyond those


class Example(NamedTuple):
    """One or more rows of tokens, and what is to be learnt of them.

    A target that is a number is stacked over the batch; one that is a vector is padded with
    -1, to the length of the rows.
    """

    tokens: list[np.ndarray]  # of each row, special tokens among them
    types: list[np.ndarray]
    targets: dict[str, np.ndarray]
    record: int  # number of the labelled record it was made of


def join_segments(
    tokenizer: Tokenizer, first: Sequence[int], second: Sequence[int] | None, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], and the types of its tokens.

    What does not fit is cut off from the end of the longer one.
    """
    if second is None:
        tokens = [tokenizer.cls_id, *first[: length - 2], tokenizer.sep_id]
        return np.array(tokens, np.int32), np.zeros(len(tokens), np.int32)
    room = length - 3
    kept_first = min(len(first), max(room - len(second), room - room // 2))
    kept_second = min(len(second), room - kept_first)
    tokens = [tokenizer.cls_id, *first[:kept_first], tokenizer.sep_id]
    types = [0] * len(tokens) + [1] * (kept_second + 1)
    tokens += [*second[:kept_second], tokenizer.sep_id]
    return np.array(tokens, np.int32), np.array(types, np.int32)


class Batches:
    """Examples in batches of [rows of the batch, rows of an example, length].

    Beside the targets a batch has `tokens`, `types`, `documents` (1, and 0 for padding) and
    `weight` [rows], which is 0 for rows that only fill up the last batch. Rows are padded to three
    lengths, quantiles of the examples'; or with `fixed_lengths` to many, the same for all examples.

    Attributes:
      batch_size: rows of a batch.
      size: number of examples.
      steps_per_epoch: batches in which every example is once.
      tokens_per_step: padded tokens of a batch, on average.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        batch_size: int,
        pad_id: int,
        seed: int = 0,
        fixed_lengths: bool = False,
    ):
        self._examples, self.batch_size, self._pad_id = examples, batch_size, pad_id
        self._seed, self.size = seed, len(examples)
        longest = np.array([_longest(example) for example in examples])
        rounded = -(-longest // MULTIPLE) * MULTIPLE
        if fixed_lengths:
            end = rounded.max() + LONG_MULTIPLE
            self._lengths = np.array([*FIXED_LENGTHS, *range(LONG_MULTIPLE, end, LONG_MULTIPLE)])
            self._lengths = self._lengths[: np.searchsorted(self._lengths, rounded.max()) + 1]
        else:
            self._lengths = np.unique(np.quantile(rounded, QUANTILES, method="higher"))
        self._bucket = np.searchsorted(self._lengths, rounded)
        self.steps_per_epoch = -(-len(examples) // batch_size)
        rows = batch_size * len(examples[0].tokens)
        lengths = [length for _, length in self._cut(np.arange(len(examples)))]
        self.tokens_per_step = rows * sum(lengths) / len(lengths)

    def _cut(self, order: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Batches of example numbers with their length.

        What does not fill a batch of its length goes into one of the next.
        """
        batches, left = [], order[:0]
        for bucket, length in enumerate(self._lengths):
            left = np.concatenate([left, order[self._bucket[order] == bucket]])
            last = bucket == len(self._lengths) - 1
            whole = len(left) if last else len(left) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                batches.append((left[start : start + self.batch_size], int(length)))
            left = left[whole:]
        return batches

    def training(self, step: int, rows: Rows = None) -> Iterator[dict[str, np.ndarray]]:
        """Shuffled batches from a step on, without end; of each, those of its rows asked for."""
        while True:
            epoch, within = divmod(step, self.steps_per_epoch)
            rng = np.random.default_rng([self._seed, epoch])
            batches = self._cut(rng.permutation(len(self._examples)))
            for index in rng.permutation(len(batches))[within:]:
                numbers, length = batches[index]
                yield self._batch(numbers, length, rows)
                step += 1

    def once(self, rows: Rows = None) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Every example once, in batches with the numbers of all their examples."""
        for numbers, length in self._cut(np.arange(len(self._examples))):
            yield self._batch(numbers, length, rows), numbers

    def _batch(self, numbers: np.ndarray, length: int, rows: Rows) -> dict[str, np.ndarray]:
        mine = np.arange(self.batch_size) if rows is None else np.asarray(rows, int)
        share = len(mine)
        # Rows come in order, so those beyond a last batch's examples are the last.
        numbers = numbers[mine[mine < len(numbers)]]
        first = self._examples[0]
        shape = (share, len(first.tokens), length)
        batch = {
            "tokens": np.full(shape, self._pad_id, np.int32),
            "types": np.zeros(shape, np.int32),
            "documents": np.zeros(shape, np.int32),
            "weight": (np.arange(share) < len(numbers)).astype(np.float32),
        }
        for name, target in first.targets.items():
            if target.ndim:
                batch[name] = np.full((share, length), -1, target.dtype)
            else:
                batch[name] = np.zeros(share, target.dtype)
        for place, number in enumerate(numbers):
            example = self._examples[number]
            for row, tokens in enumerate(example.tokens):
                batch["tokens"][place, row, : len(tokens)] = tokens
                batch["types"][place, row, : len(tokens)] = example.types[row]
                batch["documents"][place, row, : len(tokens)] = 1
            for name, target in example.targets.items():
                if target.ndim:
                    batch[name][place, : len(target)] = target
                else:
                    batch[name][place] = target
        return batch


def count_full(examples: Sequence[Example], length: int) -> int:
    """Counts examples with a row of `length` tokens: they are cut, or continue in further rows."""
    return sum(max(map(len, example.tokens)) >= length for example in examples)


def _longest(example: Example) -> int:
    """The length of an example's longest row or target."""
    vectors = [target for target in example.targets.values() if target.ndim]
    return max(map(len, [*example.tokens, *vectors]))
