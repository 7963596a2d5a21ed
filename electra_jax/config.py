"""A run's config, assembled from the fields that each part declares beside its code."""

import dataclasses
import keyword
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from electra_jax.config_files import choose_variant as choose_variant
from electra_jax.config_files import flatten_fields, join_names
from electra_jax.config_files import load_config as load_config
from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import (
    UsageError,
    above,
    at_least,
    check_fields,
    checked,
    within,
)
from electra_jax.models.electra import Electra, GeneratorConfig, generator_model
from electra_jax.models.encoder import ModelConfig
from electra_jax.objectives import find_objective
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.objectives.masking import SpecialTokens
from electra_jax.objectives.objective import Objective
from electra_jax.parallel.mesh import MeshConfig
from electra_jax.parallel.rendezvous import ProcessesConfig
from electra_jax.tasks import find_task
from electra_jax.tasks.task import TaskConfig
from electra_jax.training.checkpoint import CheckpointConfig
from electra_jax.training.config import EvalConfig, TrainConfig
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.profile import parse_steps
from electra_jax.training.trackers import TENSORBOARD, known_trackers

BERT_TOKENS = SpecialTokens(pad=0, cls=101, sep=102, mask=103)


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """The model that a run starts from.

    Users write `init.from`, or `init.model`, as `from` is a keyword.
    """

    from_: str = ""  # a model directory, ours or Hugging Face's; empty: fresh parameters

    def __post_init__(self) -> None:
        check_fields("init", self)


def _checkpoint(x: str) -> str:
    known = x in ("best", "last") or x.isdecimal()
    return "" if known else f"={x!r} is unknown; use best, last or a step"


@dataclasses.dataclass(frozen=True)
class EncoderInitConfig:
    """The model that a fine-tuning run starts from (see `InitConfig`)."""

    from_: str = ""  # a model directory
    checkpoint: str = checked("best", _checkpoint)  # of a run directory: best, last or a step
    fresh: bool = False  # only its shape and tokenizer: the encoder that was never pretrained

    def __post_init__(self) -> None:
        check_fields("init", self)


@dataclasses.dataclass(frozen=True)
class FinetuneTrainConfig:
    """Length of a run, and sizes of its batches.

    With many rows the defaults are those of the official code (docs/finetuning.md, "Defaults").
    """

    epochs: float = checked(0.0, at_least(0))  # 0: three, or as many as make 500 steps
    batch_size: int = checked(32, at_least(1))  # rows, over all devices and hosts
    accumulate: int = checked(1, at_least(1))  # microbatches that a batch is cut into
    length: int = checked(128, at_least(8))  # tokens of a row, at most
    dropout: float = checked(0.1, within("[0, 1)"))  # of layers and attention
    warmup_share: float = checked(0.1, within("[0, 1)"))  # of the steps
    # Of the learning rate, from the head down.
    layer_decay: float = checked(0.8, within("(0, 1]"))
    summed_loss: bool = True  # over the batch, and not its mean: a clip then nearly always binds
    evaluations: float = checked(1.0, above(0))  # in each epoch, or in each third of 500 steps
    # Evaluations without a gain after which a run ends; 0: never.
    patience: int = checked(0, at_least(0))
    eval_batch_size: int = checked(64, at_least(1))  # rows
    log_every: int = checked(50, at_least(1))  # steps
    profile: str = ""  # steps to trace, such as 100:110
    # Where metrics go beside metrics.jsonl: some of tensorboard,wandb,mlflow,trackio; or empty.
    trackers: str = checked(TENSORBOARD, known_trackers)
    # Steps in a row that may be skipped as they are not finite; 0: the first ends the run.
    skip_non_finite: int = checked(0, at_least(0))
    seed: int = checked(0, at_least(0))  # of the head's start, order and dropout

    def __post_init__(self) -> None:
        check_fields("train", self)
        parse_steps(self.profile)


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """All sections of a pretraining run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    generator: GeneratorConfig = dataclasses.field(default_factory=GeneratorConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    processes: ProcessesConfig = dataclasses.field(default_factory=ProcessesConfig)
    init: InitConfig = dataclasses.field(default_factory=InitConfig)

    def __post_init__(self) -> None:
        if not self.model.block.rotary and self.data.length > self.model.max_positions:
            raise UsageError(
                f"data.length={self.data.length} exceeds model.max_positions="
                f"{self.model.max_positions}; raise the latter or shorten the rows"
            )
        if self.model.architecture == "modern" and self.generator.width != 1.0:
            raise UsageError(
                "the modern architecture's generator has full width: set generator.width=1.0 "
                "and make it small by generator.depth"
            )
        pairs = self.data.layout == "pair" and not self.model.block.rotary
        if pairs and self.model.token_types < 2:
            raise UsageError("data.layout=pair needs model.token_types=2, a type for each text")
        objective = find_objective(self.objective.name)
        kinds = objective.generators
        if self.generator.kind not in kinds:
            raise UsageError(
                f"objective.name={self.objective.name} goes with generator.kind="
                f"{' or '.join(kinds)}, not {self.generator.kind}"
            )
        if self.objective.final_mask_rate and not objective.schedules_mask_rate:
            raise UsageError(
                f"objective.name={self.objective.name} has a constant mask rate: leave "
                "objective.final_mask_rate at 0"
            )
        if self.generator.kind in ("transformer", "two_tower"):
            try:
                generator_model(self.model, self.generator)
            except UsageError as error:
                raise UsageError(
                    f"generator.width={self.generator.width} and generator.depth="
                    f"{self.generator.depth} make no generator: its {error}"
                ) from None
        # A main language model lends no encoder, and its output matrix would lack the delta.
        if objective.head != "detector" and self.generator.share in ("all", "disentangled"):
            raise UsageError(
                f"objective.name={self.objective.name} goes with generator.share=embeddings or "
                f"nothing, not {self.generator.share}"
            )

    @property
    def electra(self) -> Electra:
        """The networks, with the head that the objective trains."""
        head = find_objective(self.objective.name).head
        return Electra(self.model, self.generator, head)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """All sections of a fine-tuning run. `task` has the fields of its own kind of task."""

    task: TaskConfig
    train: FinetuneTrainConfig = dataclasses.field(default_factory=FinetuneTrainConfig)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(
            learning_rate=0.0,
            warmup_steps=0,
            separate="(^|/)head/",
            separate_learning_rate=1e-3,
        )
    )
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    processes: ProcessesConfig = dataclasses.field(default_factory=ProcessesConfig)
    init: EncoderInitConfig = dataclasses.field(default_factory=EncoderInitConfig)

    def learning_rate(self, model: ModelConfig) -> float:
        """The peak rate of an encoder; 0 stands for about that of published ones of its width.

        Those are 3e-4 for Small, 1e-4 for Base, 5e-5 for Large (Clark et al., 2020, Table 7).
        """
        return self.optimizer.learning_rate or 1e-4 * 768 / model.hidden

    def __post_init__(self) -> None:
        metrics = find_task(self.task.name).metrics
        if self.task.metric and self.task.metric not in metrics:
            known = ", ".join(metrics)
            raise UsageError(f"task.metric={self.task.metric!r} is unknown; use {known}")
        if self.optimizer.warmup_steps:
            raise UsageError("fine-tuning warms up for a share of its steps: train.warmup_share")


def finetune_defaults(task: str) -> ml_collections.ConfigDict:
    """The official fine-tuning of a kind of task, for config files to change."""
    return _defaults(FinetuneConfig(find_task(task).Config(name=task)))


def build_objective(
    config: PretrainConfig, tokenizer: Tokenizer | None, unigram_entropy: float | None = None
) -> Objective:
    """The objective of a config over its networks; without a tokenizer its ids are BERT's."""
    special, continuation = BERT_TOKENS, np.zeros(config.model.vocab_size, bool)
    if tokenizer is not None:
        special = SpecialTokens(
            tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
        )
        continuation = tokenizer.continuation()
    kind = find_objective(config.objective.name)
    return kind(config.objective, config.electra, special, continuation, unigram_entropy)


def pretrain_defaults() -> ml_collections.ConfigDict:
    """The published Small as a ConfigDict, for config files to change."""
    return _defaults(PretrainConfig())


def _defaults(config: PretrainConfig | FinetuneConfig) -> ml_collections.ConfigDict:
    fields = ml_collections.ConfigDict(config_fields(config))
    fields.init.model = ""  # another name of `init.from`, which Python cannot write
    return fields.lock()


def config_fields(config: PretrainConfig | FinetuneConfig) -> dict[str, dict[str, Any]]:
    """The sections and fields of a config under the names its users know."""
    return {
        section: {name.removesuffix("_"): value for name, value in fields.items()}
        for section, fields in dataclasses.asdict(config).items()
    }


Fields = Mapping[str, Mapping[str, Any]]


def pretrain_config(fields: Fields) -> PretrainConfig:
    """The typed config of a ConfigDict or of the JSON in a run directory.

    Raises:
      UsageError: a value that makes no sense, alone or with others.
    """
    if "task" in fields:
        raise UsageError("this is the config of a fine-tuning run, not of a pretraining run")
    return _typed(PretrainConfig, typing.get_type_hints(PretrainConfig), fields)


def finetune_config(fields: Fields) -> FinetuneConfig:
    """The typed config of a fine-tuning run (see `pretrain_config`)."""
    if "task" not in fields:
        raise UsageError("this is the config of a pretraining run, not of a fine-tuning run")
    task = find_task(fields["task"].get("name", ""))
    return _typed(
        FinetuneConfig, {**typing.get_type_hints(FinetuneConfig), "task": task.Config}, fields
    )


def _typed(config: Any, kinds: Mapping[str, Any], fields: Fields) -> Any:
    fields = {**fields}
    if "init" in fields:
        init = {**fields["init"]}
        join_names(init)
        fields["init"] = {name: value for name, value in init.items() if name != "model"}
    for section, values in fields.items():
        if section not in kinds:
            raise UsageError(f"config.{section}: there is no such section")
        known = [field.name.removesuffix("_") for field in dataclasses.fields(kinds[section])]
        for name in values:
            if name not in known:
                raise UsageError(f"config.{section}.{name}: there is no such field")
    sections = {
        section.name: kinds[section.name](
            **{
                f"{name}_" if keyword.iskeyword(name) else name: value
                for name, value in fields[section.name].items()
            }
        )
        for section in dataclasses.fields(config)
        if section.name in fields
    }
    return config(**sections)


def first_difference(
    old: Any, new: Any, may_change: Callable[[str], bool]
) -> tuple[str, Any, Any] | None:
    """The first field that two configs of a kind differ in, of those that may not change.

    Args:
      old, new: configs of the same kind.
      may_change: "section.field" → whether it may.

    Returns:
      Name, old and new value; None if there is none.
    """
    before = dict(flatten_fields(config_fields(old)))
    for name, value in flatten_fields(config_fields(new)):
        if before.get(name) != value and not may_change(name):
            return name, before.get(name), value
    return None
