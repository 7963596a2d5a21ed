"""A run's config, assembled from the fields that each part declares beside its code.

A config file is Python with `get_config(variant) -> ConfigDict`; command-line overrides
`--config.section.field=value` take the type of the field they override.
"""

import dataclasses
import difflib
import importlib.util
import keyword
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from electra_jax.data.sampler import DataConfig
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError, above, at_least, check_fields, checked, within
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
from electra_jax.training.loop import EvalConfig, TrainConfig
from electra_jax.training.optimizer import OptimizerConfig
from electra_jax.training.profile import parse_steps

PACKAGE = Path(__file__).parent
BERT_TOKENS = SpecialTokens(pad=0, cls=101, sep=102, mask=103)

# Shipped configs that had other names in version 0.1; both are read.
FORMER_NAMES = {
    "finetune/answer": "finetune/question_answering",
    "finetune/choose": "finetune/choice",
    "finetune/classify": "finetune/classification",
    "finetune/retrieve": "finetune/retrieval",
    "finetune/summarize": "finetune/summarization",
    "finetune/tag": "finetune/tagging",
}


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
    accumulate: int = checked(1, at_least(1))
    length: int = checked(128, at_least(8))  # tokens of a row, at most
    dropout: float = checked(0.1, within("[0, 1)"))
    warmup_share: float = checked(0.1, within("[0, 1)"))  # of the steps
    # Of the learning rate, from the head down.
    layer_decay: float = checked(0.8, within("(0, 1]"))
    summed_loss: bool = True  # over the batch, and not its mean: a clip then nearly always binds
    evaluations: float = checked(1.0, above(0))  # in each epoch, or in each third of 500 steps
    # Evaluations without a gain after which a run ends; 0: never.
    patience: int = checked(0, at_least(0))
    eval_batch_size: int = checked(64, at_least(1))
    log_every: int = checked(50, at_least(1))
    profile: str = ""  # steps to trace, such as 100:110
    seed: int = checked(0, at_least(0))

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
        _join_names(init)
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


def _join_names(init: Any) -> None:
    """Moves `init.model` to `init.from`.

    Raises:
      UsageError: they differ.
    """
    model, source = init.get("model", ""), init.get("from", "")
    if model and source and model != source:
        raise UsageError(
            f"init.model={model!r} and init.from={source!r} are two names of one field: give one"
        )
    if model:
        init["from"], init["model"] = model, ""


def load_config(spec: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Reads FILE[:variant] and applies overrides.

    Args:
      spec: a Python file, or the name of one that is shipped, such as `pretrain/tiny`.
      overrides: "section.field=value" strings.

    Raises:
      UsageError: no such file, variant or field, or a value of the wrong type.
    """
    file, variant = split_variant(spec)
    path = find_config(file)
    module_spec = importlib.util.spec_from_file_location("electra_jax_config", path)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        config = module.get_config(variant)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except Exception as error:
        raise UsageError(f"{path} is not an usable config: {error!r}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(f"{path}: get_config returns no ConfigDict but {config!r:.60}")
    for section, values in config.items():
        if not isinstance(values, ml_collections.ConfigDict):
            raise UsageError(f"{path}: config.{section} is {values!r:.60} and not a section")
    init = config.get("init", {})
    _join_names(init)
    if any(override.startswith("init.model=") for override in overrides):
        init["from"] = ""  # what the file says is overridden under either name
    for override in overrides:
        _override(config, override)
    _join_names(init)
    return config


def split_variant(spec: str) -> tuple[str, str]:
    """The file and the variant of FILE[:variant]; a file whose path has colons is that file."""
    parts = spec.split(":")
    for end in range(len(parts), 0, -1):
        file = ":".join(parts[:end])
        if Path(file).is_file():
            return file, ":".join(parts[end:])
    return parts[0], ":".join(parts[1:])


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
    name = file.removeprefix("configs/").removesuffix(".py")
    name = FORMER_NAMES.get(name, name) + ".py"
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
