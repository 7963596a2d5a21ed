"""A fine-tuned model in use: answers to new rows."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from electra_jax.config import FinetuneConfig
from electra_jax.data.examples import Batches, count_full
from electra_jax.data.labelled import Row
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.errors import UsageError
from electra_jax.inference.encoder import PretrainedEncoder, compiled, embed, run_examples
from electra_jax.inference.pretrained import PretrainedModel, check_tokenizer, load_pretrained
from electra_jax.interop.hub import local_model
from electra_jax.interop.tensor_checks import check_room
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import EncoderWithHead
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.run_directory import TASK_FILE, TOKENIZER, check_config, read_any_config
from electra_jax.system.atomic_files import write_json
from electra_jax.system.json_files import read_object, reading, seal, unseal
from electra_jax.system.progress import Progress
from electra_jax.tasks import find_task
from electra_jax.tasks.task import Answer, Task
from electra_jax.training.checkpoint import FOLDER, Checkpoints

TASK_VERSION = 1
CHUNK = 512  # rows answered at a time


def save_task(task: Task, model: ModelConfig, workdir: Path) -> None:
    """Writes the labels of a fine-tuning run and the shape of its encoder."""
    content = {
        "version": TASK_VERSION, "state": task.state, "model": dataclasses.asdict(model)
    }  # fmt: skip
    write_json(workdir / TASK_FILE, seal(content))


def read_task(config: FinetuneConfig, workdir: str | Path) -> tuple[Task, ModelConfig]:
    """The inverse of `save_task`.

    Raises:
      UsageError: it is missing, damaged or of a newer version.
    """
    path = Path(workdir) / TASK_FILE
    content = read_object(path)
    with reading(path):
        if content["version"] > TASK_VERSION:
            raise UsageError(f"it has version {content['version']}: upgrade electra-jax")
        content = unseal(content, ("version", "state", "model"))
        tokenizer = load_tokenizer(Path(workdir) / TOKENIZER)
        task = find_task(config.task.name)(config.task, tokenizer, content["state"])
        model = ModelConfig(**content["model"]).anywhere
        task.head(model)  # needs what is learnt from the training data
        return task, model


def scatter(outputs: Any, indices: np.ndarray, into: list) -> None:
    """Puts each row of a batch's outputs at the index of its example."""
    for row, index in enumerate(indices):
        into[index] = jax.tree.map(lambda x, row=row: x[row], outputs)


@dataclasses.dataclass(repr=False)
class FinetunedModel:
    """A fine-tuned model with its task."""

    config: FinetuneConfig
    task: Task
    model: ModelConfig
    params: dict
    step: int
    full_rows: int = 0  # of all that it has answered: as long as rows may be, and perhaps cut
    empty_rows: list[str] = dataclasses.field(default_factory=list)  # where those without text are

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {self.task.name}, {self.model.layers} layers of "
            f"{self.model.hidden}, step {self.step:,}>"
        )

    @property
    def encoder(self) -> PretrainedEncoder:
        """The model without its head."""
        params = {name: self.params[name] for name in ("embeddings", "encoder")}
        # What its pretraining read is not kept; fine-tuning has made sure of its positions.
        return PretrainedEncoder(self.model, params, self.task.tokenizer, self.model.max_positions)

    @functools.cached_property
    def _apply(self) -> Any:
        return compiled(EncoderWithHead(self.model, self.task.head(self.model)))

    def answer(
        self, records: Sequence[Any], batch_size: int = 0, progress: bool = False
    ) -> list[Answer]:
        """An answer to each record of the task."""
        if not records:
            return []
        c = self.config.train
        examples = self.task.examples(records, c.length, False, False)
        self.full_rows += count_full(examples, c.length)
        rows, pad_id = batch_size or c.eval_batch_size, self.task.tokenizer.pad_id
        batches = Batches(examples, rows, pad_id, fixed_lengths=True)
        outputs: list[Any] = [None] * len(examples)
        mesh = make_mesh(MeshConfig(), list(jax.tree.leaves(self.params)[0].sharding.device_set))
        with Progress(len(examples), unit="rows", label="answering", shown=progress) as bar:
            for output, indices in run_examples(self._apply, self.params, batches, mesh):
                scatter(output, indices, outputs)
                bar.add(len(indices))
        return self.task.answers(outputs, examples, records)

    def predict(self, inputs: Iterable[Any]) -> list[Answer]:
        """Answers to inputs, each a text, a list of texts or an object with named columns.

        Raises:
          UsageError: an input lacks what the task reads; says which.
        """
        if isinstance(inputs, str):
            raise UsageError("predict takes a list of inputs, not one text")
        rows = (as_row(self.task, value, f"input {n}") for n, value in enumerate(inputs, start=1))
        return [answer for chunk in chunked(rows) for answer in self.answer_rows(chunk)]

    def answer_rows(self, rows: Sequence[Row]) -> list[Answer]:
        """An answer to each row.

        Raises:
          UsageError: a row lacks what the task reads; says which.
        """
        records = [self.task.parse(row, False) for row in rows]
        pairs = zip(rows, records, strict=True)
        self.empty_rows += [row.where for row, record in pairs if self.task.is_empty(record)]
        return self.answer(records)

    def embed(self, texts: Sequence[str], pooling: str = "", progress: bool = False) -> np.ndarray:
        """See `inference.encoder.embed`; by default pooled as the task does."""
        pooling = pooling or self.task.vector_pooling(self.model)
        return embed(self.encoder, texts, self.config.train.length, pooling, progress)


def chunked(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows, some hundred at a time."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def as_row(task: Task, value: Any, where: str) -> Row:
    """An input of `predict` as a row with the columns that the task reads."""
    if isinstance(value, dict):
        return Row(where, value)
    columns = task.input_columns
    if not isinstance(value, str | list | tuple):
        raise UsageError(f"{where}: neither a text, a list nor an object but {value!r:.60}")
    values = [value] if isinstance(value, str) or len(columns) == 1 else list(value)
    if len(values) != len(columns):
        raise UsageError(f"{where}: {len(values)} values, where {len(columns)} are needed "
                         f"({', '.join(columns)})")  # fmt: skip
    return Row(where, dict(zip(columns, values, strict=True)))


def load(path: str | Path, checkpoint: str = "best") -> PretrainedModel | FinetunedModel:
    """Loads a model: pretrained (see `inference.pretrained.load_pretrained`) or fine-tuned.

    Its directory, or `hub:NAME[@REVISION]` for one of the Hugging Face hub.

    Raises:
      UsageError: no model there, or no such checkpoint.
    """
    path = local_model(path)
    if (Path(path) / TASK_FILE).exists():
        return load_finetuned(path, checkpoint)
    return load_pretrained(path, checkpoint)


def load_finetuned(path: str | Path, checkpoint: str = "best") -> FinetunedModel:
    """Loads a fine-tuned model.

    Raises:
      UsageError: the directory is of no fine-tuning run, or there is no such checkpoint.
    """
    path = Path(local_model(path))
    config = read_any_config(path)
    if not isinstance(config, FinetuneConfig):
        raise UsageError(f"{path} is a pretraining run: fine-tune it first")
    task, model = read_task(config, path)
    with Checkpoints(path, metric=task.metric, maximise=True, read_only=True) as checkpoints:
        step = checkpoints.choose(checkpoint)
        record = checkpoints.record_at(step)
        check_config(config, record, path)
        check_tokenizer(task.tokenizer, record, model.vocab_size, path)
        check_room(model, (path / FOLDER / str(step)).rglob("*"))
        network = EncoderWithHead(model, task.head(model))
        shapes = jax.eval_shape(lambda key: init_head(network, task, key), jax.random.key(0))
        params = checkpoints.restore_params(step, shapes)
    return FinetunedModel(config, task, model, params, step)


def init_head(network: EncoderWithHead, task: Task, key: jax.Array) -> dict:
    """Fresh parameters of an encoder with a task's head."""
    return network.init(key, task.sample_batch())["params"]
