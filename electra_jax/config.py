"""A run's config, assembled from the fields that each part declares beside its code.

A config file is Python with `get_config(variant) -> ConfigDict`; command-line overrides
`--config.section.field=value` take the type of the field they override.
"""

import dataclasses
import difflib
import importlib.util
import json
import keyword
import typing
from collections.abc import Iterator, Mapping, Sequence
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
from electra_jax.training.checkpoint import CheckpointConfig
from electra_jax.training.loop import EvalConfig, TrainConfig
from electra_jax.training.optimizer import OptimizerConfig

PACKAGE = Path(__file__).parent
CONFIG_FILE = "config.json"
CONFIG_VERSION = 1


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """What a run starts from. The field is `init.from` to its users: Python keeps the word."""

    from_: str = ""  # a model directory, ours or Hugging Face's; empty: fresh parameters


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

        kinds = objectives()[self.objective.name].generators
        if self.generator.kind not in kinds:
            raise UsageError(
                f"objective.name={self.objective.name} goes with generator.kind="
                f"{' or '.join(kinds)}, not {self.generator.kind}"
            )

    @property
    def electra(self) -> Electra:
        """The networks, with the head that the objective trains."""
        head = objectives()[self.objective.name].head
        return Electra(self.model, self.generator, head)


def pretrain_defaults() -> ml_collections.ConfigDict:
    """The published Small as a ConfigDict, for config files to change."""
    return ml_collections.ConfigDict(config_fields(PretrainConfig()))


def config_fields(config: PretrainConfig) -> dict[str, dict[str, Any]]:
    """The sections and fields of a config under the names its users know."""
    return {
        section: {name.removesuffix("_"): value for name, value in fields.items()}
        for section, fields in dataclasses.asdict(config).items()
    }


def pretrain_config(fields: Mapping[str, Mapping[str, Any]]) -> PretrainConfig:
    """The typed config of a ConfigDict or of the JSON in a run directory.

    Raises:
      UsageError: a value that makes no sense, alone or with others.
    """
    kinds = typing.get_type_hints(PretrainConfig)
    sections = {
        section.name: kinds[section.name](
            **{
                f"{name}_" if keyword.iskeyword(name) else name: value
                for name, value in fields.get(section.name, {}).items()
            }
        )
        for section in dataclasses.fields(PretrainConfig)
    }
    return PretrainConfig(**sections)


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
    names = {name: value for name, value in flatten(config)}
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


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) pairs."""
    for name, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def save_config(config: PretrainConfig, workdir: Path) -> None:
    """Writes `config.json` of a run directory."""
    fields = {"version": CONFIG_VERSION, **config_fields(config)}
    (workdir / CONFIG_FILE).write_text(json.dumps(fields, indent=2) + "\n")


def read_config(workdir: str | Path) -> PretrainConfig:
    """The config of a run directory.

    Raises:
      UsageError: not a run directory, or one of a newer version.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise UsageError(f"{workdir} is no run directory: it has no {CONFIG_FILE}")
    try:
        fields = json.loads(path.read_text())
        version = fields.pop("version")
        if version > CONFIG_VERSION:
            raise UsageError(
                f"{path} has version {version}, this program reads up to {CONFIG_VERSION}: upgrade"
            )
        return pretrain_config(fields)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error!r}") from error
