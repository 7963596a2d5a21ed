"""Step → batch: what is in a step is a pure function of (store, seed, step).

There is no shuffle buffer and no iterator to save. One NumPy function makes the batches;
the tf.data pipeline calls it ahead of time in threads, the plain iterator calls it in turn,
so their batches are equal. Any number of hosts see the same global batch.
"""

import dataclasses
import importlib.util
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from electra_jax.data.permutation import fold, permute, uniform
from electra_jax.data.rows import LAYOUTS, SHORTEST_LENGTH, RowTable, row_table
from electra_jax.data.source_list import escape, split_last_colon, split_list, unescape
from electra_jax.data.store_checks import Split, check_ids
from electra_jax.errors import UsageError, at_least, check_fields, checked, one_of

Batch = dict[str, np.ndarray]
Rows = Sequence[int] | np.ndarray | None  # numbers within a global batch; None is all of it

NAMES = ("tokens", "documents", "types")
SINGLE_SEGMENT_SHARE = 0.1  # of pair rows, as in the official code
MIXTURE_PERIOD = 10_000  # rows over which a mixture's shares are exact
BATCHES_AHEAD = 2
LAST_STEP = 2**62
PIPELINES = ("auto", "tfdata", "plain")
# tf.data costs half a millisecond a batch (docs/results.md, "Sampler"). In a batch of as many slots
# that is most of the time; larger ones gain more by being made ahead, on other cores.
PLAIN_SLOTS = 2**14


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The stores of a run, and the layout of its rows."""

    store: str = ""  # a token store, or several with weights: "a:0.7,b:0.3"
    # [CLS] A [SEP] B [SEP], or "packed": several documents a row.
    layout: str = checked("pair", one_of(LAYOUTS))
    # Tokens a row, special tokens included.
    length: int = checked(128, at_least(SHORTEST_LENGTH))
    # Of batches: tfdata (ahead, by TensorFlow), plain (in turn), or auto: plain for small ones.
    pipeline: str = checked("auto", one_of(PIPELINES))

    def __post_init__(self) -> None:
        check_fields("data", self)
        if self.store:
            parse_stores(self.store)


def parse_stores(text: str) -> list[tuple[str, float]]:
    r"""Reads "a:0.7,b:0.3" or "a" as (path, weight) pairs.

    A comma or a colon of a path is written "\," or "\:"; a folder that exists as it is written
    needs none (see `source_list`).

    Raises:
      UsageError: empty, or a weight that is not a number above 0.
    """
    stores = []
    for part in split_list(text, lambda part: _exists(part) or _exists(split_last_colon(part)[0])):
        path, weight = (part, None) if _exists(part) else split_last_colon(part)
        if weight is None or "/" in weight:
            path, weight = part, "1"
        try:
            stores.append((path if _exists(path) else unescape(path), float(weight)))
        except ValueError:
            raise UsageError(
                f"data.store={text!r}: {weight!r} is not a weight; a colon in a path is written \\:"
            ) from None
        if not 0 < stores[-1][1] < math.inf:
            raise UsageError(f"data.store={text!r}: weights must be positive, not {weight}")
    if not stores:
        raise UsageError("data.store is empty: give --config.data.store=DIR (see `prepare`)")
    return stores


def absolute_stores(text: str) -> str:
    """The same stores by paths that hold in any folder; addresses stay."""
    parts = []
    stores = parse_stores(text)
    for path, weight in stores:
        path = escape(path if "://" in path else os.path.abspath(path))
        parts.append(path if len(stores) == 1 else f"{path}:{weight!r}")
    return ",".join(parts)


def _exists(path: str) -> bool:
    return bool(path) and os.path.isdir(path)


class Sampler:
    """Batches of rows from splits of token stores.

    Attributes:
      rows: in an epoch; each row of each split is read once in it, unless weights say
        otherwise.
      tokens_per_epoch: without special tokens.
      padding_share: of the slots of an epoch.
    """

    def __init__(
        self,
        splits: Sequence[tuple[Split, float]],
        *,
        length: int,
        layout: str,
        batch_size: int,
        seed: int,
        cls_id: int,
        sep_id: int,
        pad_id: int,
        pipeline: str = "auto",
    ) -> None:
        """Makes the row tables, or reads them where they have been made before.

        Args:
          splits: with weights, which need not add up to 1.
          length: slots in a row.
          layout: "pair" or "packed".
          batch_size: rows of a global batch.
          seed: of the order and of where pairs are split.
          pipeline: one of PIPELINES.

        Raises:
          UsageError: no split, a weight that is not positive, an empty split, rows too
            short, an unknown layout, or tf.data is asked for and not installed.
        """
        if not splits:
            raise UsageError("no token store to read from")
        weights = np.array([weight for _, weight in splits], float)
        if not (np.isfinite(weights) & (weights > 0)).all():
            raise UsageError("data.store: weights must be positive")
        self.length, self.layout, self.batch_size = length, layout, batch_size
        self._pipeline = find_pipeline(pipeline)
        self._seed = seed
        self._cls, self._sep, self._pad = cls_id, sep_id, pad_id
        self._splits = [split for split, _ in splits]
        self._tables = [row_table(split, length, layout) for split, _ in splits]
        self._source_of_row, self._shares, self._before = interleave(weights)
        self.rows = sum(table.rows for table in self._tables)
        self.tokens_per_epoch = sum(len(split.tokens) for split in self._splits)
        if layout == "packed":
            special = 2 * sum(len(table.starts) for table in self._tables)
        else:
            special = 3 * self.rows
        self.padding_share = 1 - (self.tokens_per_epoch + special) / (self.rows * length)
        self._refused: UsageError | None = None

    def batch(self, step: int, rows: Rows = None) -> Batch:
        """The batch of one step, or those of its rows that a process holds.

        Returns:
          `tokens`, `documents` and `types`, int32 [rows, length].

        Raises:
          UsageError: a token of the store is not of its vocabulary.
        """
        numbers = step * self.batch_size + self._mine(rows)
        block, place = np.divmod(numbers, MIXTURE_PERIOD)
        sources = self._source_of_row[place]
        counts = block * self._shares[sources] + self._before[place]
        batch = self._empty(len(numbers))
        for source in np.unique(sources):
            table = self._tables[source]
            here = np.flatnonzero(sources == source)
            epochs, indices = np.divmod(counts[here], table.rows)
            for epoch in np.unique(epochs):
                key = fold(self._seed, int(source), int(epoch))
                now = epochs == epoch
                rows = permute(indices[now], table.rows, key)
                for name, values in self._render(int(source), rows, key).items():
                    batch[name][here[now]] = values
        return batch

    def batches(self, step: int, rows: Rows = None) -> Iterator[Batch]:
        """Batches from `step` on, made in turn or ahead of time, as `pipeline` says."""
        if self.uses_tfdata(rows):
            return self._from_dataset(step, rows)
        return self.iterate(step, rows)

    def uses_tfdata(self, rows: Rows = None) -> bool:
        """Whether tf.data makes the batches."""
        if self._pipeline == "auto":
            return len(self._mine(rows)) * self.length > PLAIN_SLOTS
        return self._pipeline == "tfdata"

    def iterate(self, step: int, rows: Rows = None) -> Iterator[Batch]:
        """Batches from `step` on, without TensorFlow."""
        for number in itertools.count(step):
            yield self.batch(number, rows)

    def _from_dataset(self, step: int, rows: Rows) -> Iterator[Batch]:
        try:
            yield from self.dataset(step, rows).as_numpy_iterator()
        except Exception:  # TensorFlow gives a traceback as the message
            if self._refused is not None:
                raise self._refused from None
            raise

    def dataset(self, step: int, rows: Rows = None) -> Any:
        """Batches from `step` on, as a tf.data.Dataset."""
        import tensorflow as tf

        # The accelerators are for JAX; TensorFlow would take their memory.
        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)

        count = len(self._mine(rows))

        def arrays_of(number: Any) -> tuple[np.ndarray, ...]:
            try:
                return tuple(self.batch(int(number), rows).values())
            except UsageError as error:
                self._refused = error
                raise

        def make(number: Any) -> dict[str, Any]:
            arrays = tf.numpy_function(
                arrays_of,
                [number],
                [tf.int32] * len(NAMES),
                stateful=False,
            )
            return {
                name: tf.ensure_shape(array, (count, self.length))
                for name, array in zip(NAMES, arrays, strict=True)
            }

        return (
            tf.data.Dataset.range(step, LAST_STEP)
            .map(make, num_parallel_calls=BATCHES_AHEAD, deterministic=True)
            .prefetch(BATCHES_AHEAD)
        )

    def epoch(self, rows: Rows = None) -> Iterator[Batch]:
        """Every row once, in an order that is always the same; empty rows fill the last batch.

        The order is shuffled, so that the first batches are a fair sample of all.
        """
        mine = self._mine(rows)
        bounds = np.cumsum([0] + [table.rows for table in self._tables])
        for first in range(0, self.rows, self.batch_size):
            numbers = first + mine
            here = np.flatnonzero(numbers < self.rows)
            chosen = permute(numbers[here], self.rows, key=0)
            batch = self._empty(len(numbers))
            for source in range(len(self._tables)):
                now = (chosen >= bounds[source]) & (chosen < bounds[source + 1])
                rendered = self._render(source, chosen[now] - bounds[source], key=0)
                for name, values in rendered.items():
                    batch[name][here[now]] = values
            yield batch

    def _mine(self, rows: Rows) -> np.ndarray:
        return np.arange(self.batch_size) if rows is None else np.asarray(rows, int)

    def _empty(self, rows: int) -> Batch:
        shape = (rows, self.length)
        fill = (self._pad, 0, 0)
        return {
            name: np.full(shape, value, np.int32) for name, value in zip(NAMES, fill, strict=True)
        }

    def _render(self, source: int, rows: np.ndarray, key: int) -> Batch:
        table, split = self._tables[source], self._splits[source]
        if self.layout == "packed":
            return self._render_packed(table, split, rows)
        return self._render_pairs(table, split, rows, key)

    def _render_packed(self, table: RowTable, split: Split, rows: np.ndarray) -> Batch:
        """[CLS] document [SEP] [CLS] document [SEP] …, numbered from 1."""
        batch = self._empty(len(rows))
        counts = table.first[rows + 1] - table.first[rows]
        pieces = ragged_ranges(table.first[rows], counts)
        lengths = table.lengths[pieces].astype(np.int64)
        # Where each piece's [CLS] stands, in the batch laid flat.
        ends = np.cumsum(lengths + 2)
        begins = ends - (lengths + 2)
        piece_first = np.cumsum(counts) - counts
        slots = begins + np.repeat(np.arange(len(rows)) * self.length - begins[piece_first], counts)
        number = 1 + np.arange(len(pieces)) - np.repeat(piece_first, counts)
        flat = batch["tokens"].reshape(-1)
        flat[slots] = self._cls
        flat[ragged_ranges(slots + 1, lengths)] = _read(
            split, ragged_ranges(table.starts[pieces], lengths)
        )
        flat[slots + 1 + lengths] = self._sep
        batch["documents"].reshape(-1)[ragged_ranges(slots, lengths + 2)] = np.repeat(
            number, lengths + 2
        )
        return batch

    def _render_pairs(self, table: RowTable, split: Split, rows: np.ndarray, key: int) -> Batch:
        """[CLS] A [SEP] B [SEP] with types 0 and 1, or [CLS] A [SEP]; one document a row."""
        starts, lengths = table.starts[rows], table.lengths[rows].astype(np.int64)
        single = (uniform(rows, fold(key, 1)) < SINGLE_SEGMENT_SHARE) | (lengths < 2)
        cut = 1 + (uniform(rows, fold(key, 2)) * (lengths - 1)).astype(np.int64)
        first = np.where(single, lengths, cut)[:, None]  # tokens of A
        columns = np.arange(self.length)
        second = columns > first + 1
        last = (lengths + np.where(single, 1, 2))[:, None]
        is_sep = (columns == first + 1) | (columns == last)
        body = (columns > 0) & (columns < last) & ~is_sep
        batch = self._empty(len(rows))
        place = starts[:, None] + columns - 1 - second
        batch["tokens"][body] = _read(split, place[body])
        batch["tokens"][:, 0] = self._cls
        batch["tokens"][is_sep] = self._sep
        batch["documents"][columns <= last] = 1
        batch["types"][second & (columns <= last)] = 1
        return batch


def find_pipeline(pipeline: str) -> str:
    """The pipeline that is asked for, or "plain" where TensorFlow is not installed for "auto".

    Raises:
      UsageError: tf.data is asked for and not installed.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        return pipeline
    if pipeline == "tfdata":
        raise UsageError(
            "data.pipeline=tfdata needs TensorFlow, which is not installed: leave the field at "
            "auto, or pip install tensorflow"
        )
    return "plain"


def _read(split: Split, places: np.ndarray) -> np.ndarray:
    """The tokens at places of a split; each is of its vocabulary."""
    tokens = split.tokens[places]
    check_ids(split, tokens)
    return tokens


def ragged_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, … of each length, one after another; int64."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def interleave(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whose turn it is in each of MIXTURE_PERIOD rows, evenly spread.

    Returns:
      The source of each place in the period; rows of each source in a period; and for each
      place how many rows of its source come before it in the period.
    """
    shares = np.floor(weights / weights.sum() * MIXTURE_PERIOD).astype(np.int64)
    shares = np.maximum(shares, 1)
    shares[shares.argmax()] += MIXTURE_PERIOD - shares.sum()
    sources = np.repeat(np.arange(len(shares)), shares)
    number = ragged_ranges(np.zeros(len(shares), np.int64), shares)
    # The n-th row of a source is due after (n + 1/2) of its share of the period.
    order = np.argsort((number + 0.5) / shares[sources], kind="stable")
    return sources[order], shares, number[order]
