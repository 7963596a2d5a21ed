"""A run's config, assembled from the fields that each part declares beside its code.

A config file is Python with `get_config(variant) -> ConfigDict`; command-line overrides
`--config.section.field=value` take the type of the field they override.
"""

import dataclasses
import difflib
import importlib.util
import keyword
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from electra_jax.data.sampler import DataConfig
from electra_jax.errors import UsageError
from electra_jax.models.electra import Electra, GeneratorConfig
from electra_jax.models.encoder import ModelConfig
from electra_jax.objectives import objectives
from electra_jax.objectives.config import ObjectiveConfig
from electra_jax.parallel.mesh import MeshConfig
from electra_jax.parallel.rendezvous import ProcessesConfig
from electra_jax.tasks import tasks
from electra_jax.tasks.task import TaskConfig
from electra_jax.training.checkpoint import CheckpointConfig
from electra_jax.training.loop import EvalConfig, TrainConfig
from electra_jax.training.optimizer import OptimizerConfig

PACKAGE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """What a run starts from. The field is `init.from` to its users: Python keeps the word."""

    from_: str = ""  # a model directory, ours or Hugging Face's; empty: fresh parameters


@dataclasses.dataclass(frozen=True)
class EncoderInitConfig:
    """What a fine-tuning run starts from (see `InitConfig`)."""

    from_: str = ""  # a model directory
    checkpoint: str = "best"  # of a run directory: best, last or a step
    fresh: bool = False  # only its shape and tokenizer: the encoder that was never pretrained


@dataclasses.dataclass(frozen=True)
class FinetuneTrainConfig:
    """How long, and in what portions; the defaults are those of the official code."""

    epochs: float = 3.0
    batch_size: int = 32  # rows, over all devices and hosts
    accumulate: int = 1
    length: int = 128  # tokens of a row, at most
    dropout: float = 0.1
    warmup_share: float = 0.1  # of the steps
    layer_decay: float = 0.8  # of the learning rate, from the head down
    summed_loss: bool = True  # over the batch, and not its mean: a clip then nearly always binds
    evaluations: float = 1.0  # in each epoch
    patience: int = 0  # evaluations without a gain after which a run ends; 0: never
    eval_batch_size: int = 64
    log_every: int = 50
    seed: int = 0

    def __post_init__(self):
        for field in ("batch_size", "accumulate", "eval_batch_size", "log_every"):
            if getattr(self, field) < 1:
                raise UsageError(f"train.{field} must be at least 1, not {getattr(self, field)}")
        for field in ("patience", "seed"):
            if getattr(self, field) < 0:
                raise UsageError(f"train.{field} must not be negative")
        for field in ("epochs", "evaluations"):
            if not 0 < getattr(self, field) < math.inf:
                raise UsageError(f"train.{field} must be above 0, not {getattr(self, field)}")
        if self.length < 8:
            raise UsageError(f"train.length must be at least 8, not {self.length}")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"train.layer_decay must be in (0, 1], not {self.layer_decay}")
        for field in ("dropout", "warmup_share"):
            if not 0 <= getattr(self, field) < 1:
                raise UsageError(f"train.{field} must be in [0, 1), not {getattr(self, field)}")


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

    def __post_init__(self):
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
        objective = objectives()[self.objective.name]
        kinds = objective.generators
        if self.generator.kind not in kinds:
            raise UsageError(
                f"objective.name={self.objective.name} goes with generator.kind="
                f"{' or '.join(kinds)}, not {self.generator.kind}"
            )
        # A main language model lends no encoder, and its output matrix would lack the delta.
        if objective.head != "detector" and self.generator.share in ("all", "disentangled"):
            raise UsageError(
                f"objective.name={self.objective.name} goes with generator.share=embeddings or "
                f"nothing, not {self.generator.share}"
            )

    @property
    def electra(self) -> Electra:
        """The networks, with the head that the objective trains."""
        head = objectives()[self.objective.name].head
        return Electra(self.model, self.generator, head)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """All sections of a fine-tuning run. `task` has the fields of its own kind of task."""

    task: TaskConfig
    train: FinetuneTrainConfig = dataclasses.field(default_factory=FinetuneTrainConfig)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-4, warmup_steps=0)
    )
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    processes: ProcessesConfig = dataclasses.field(default_factory=ProcessesConfig)
    init: EncoderInitConfig = dataclasses.field(default_factory=EncoderInitConfig)

    def __post_init__(self):
        if self.optimizer.warmup_steps:
            raise UsageError("fine-tuning warms up for a share of its steps: train.warmup_share")


def finetune_defaults(task: str) -> ml_collections.ConfigDict:
    """The official fine-tuning of a kind of task, for config files to change."""
    fields = config_fields(FinetuneConfig(find_task(task).Config()))
    return ml_collections.ConfigDict(fields).lock()


def find_task(name: str) -> Any:
    """The class of a task.

    Raises:
      UsageError: there is none of that name.
    """
    if name not in tasks():
        raise UsageError(f"task.name={name!r} is unknown; use {', '.join(sorted(tasks()))}")
    return tasks()[name]


def pretrain_defaults() -> ml_collections.ConfigDict:
    """The published Small as a ConfigDict, for config files to change."""
    return ml_collections.ConfigDict(config_fields(PretrainConfig())).lock()


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
    task = find_task(fields["task"]["name"])
    return _typed(
        FinetuneConfig, {**typing.get_type_hints(FinetuneConfig), "task": task.Config}, fields
    )


def _typed(config: Any, kinds: Mapping[str, Any], fields: Fields) -> Any:
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
                for name, value in fields.get(section.name, {}).items()
            }
        )
        for section in dataclasses.fields(config)
    }
    return config(**sections)


def load_config(spec: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Reads FILE[:variant] and applies overrides.

    Args:
      spec: a Python file, or the name of one that is shipped, such as `pretrain/tiny`.
      overrides: "section.field=value" strings.

    Raises:
      UsageError: no such file, variant or field, or a value of the wrong type.
    """
    file, _, variant = spec.partition(":")
    path = find_config(file)
    module_spec = importlib.util.spec_from_file_location("electra_jax_config", path)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(variant)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:
        raise UsageError(f"{path} is no usable config: {error!r}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(f"{path}: get_config returns no ConfigDict but {config!r:.60}")
    for override in overrides:
        _override(config, override)
    return config


def find_config(file: str) -> Path:
    """The file itself, or the shipped config of that name (`configs/` and `.py` may be left out).

    Raises:
      UsageError: there is none; lists those that are shipped.
    """
    path = Path(file)
    if path.is_file():
        return path
    # In a wheel the shipped configs lie in the package, in a checkout beside it.
    roots = [PACKAGE / "configs", PACKAGE.parent / "configs"]
    name = file.removeprefix("configs/").removesuffix(".py") + ".py"
    for root in roots:
        if (root / name).is_file():
            return root / name
    shipped = sorted(
        str(found.relative_to(root))
        for root in roots
        for found in root.glob("*/*.py")
        if found.stem != "__init__"
    )
    raise UsageError(f"no config file {file}; shipped with the package: {', '.join(shipped)}")


def choose_variant(variant: str, known: Sequence[str]) -> str:
    """The variant, if a config file knows it.

    Raises:
      UsageError: it does not.
    """
    if variant and variant not in known:
        raise UsageError(f"no variant {variant!r}; there are {', '.join(known)}")
    return variant


def _override(config: ml_collections.ConfigDict, override: str) -> None:
    path, equals, text = override.partition("=")
    names = {name: value for name, value in flatten_fields(config)}
    if not equals:
        raise UsageError(f"--config.{path} needs a value: --config.{path}=VALUE")
    if path not in names:
        close = difflib.get_close_matches(path, names, n=1, cutoff=0.5)
        hint = f"; did you mean --config.{close[0]}?" if close else ""
        raise UsageError(f"--config.{path}: there is no such field{hint}")
    section, field = path.rsplit(".", 1)
    config[section][field] = _parse(path, text, names[path])


def _parse(path: str, text: str, current: Any) -> Any:
    kind = type(current)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            value = float(text)  # 1e6 is a welcome way to write a million
            if value != int(value):
                raise ValueError
            return int(text) if text.lstrip("+-").isdecimal() else int(value)
        return kind(text)
    except (KeyError, ValueError, OverflowError):
        raise UsageError(
            f"--config.{path}={text}: not of type {kind.__name__} (now {current!r})"
        ) from None


def flatten_fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) pairs."""
    for name, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten_fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


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
