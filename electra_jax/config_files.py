"""Config files: found, read, and changed by overrides.

A config file is Python with `get_config(variant) -> ConfigDict`; command-line overrides
`--config.section.field=value` take the type of the field they override.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from electra_jax.errors import UsageError, did_you_mean

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
# Shipped configs that had other names in version 0.1; both are read.
FORMER_NAMES = {
    "finetune/answer": "finetune/question_answering",
    "finetune/choose": "finetune/choice",
    "finetune/classify": "finetune/classification",
    "finetune/retrieve": "finetune/retrieval",
    "finetune/summarize": "finetune/summarization",
    "finetune/tag": "finetune/tagging",
}


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
    except UnknownVariant:
        raise
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
    join_names(init)
    if any(override.startswith("init.model=") for override in overrides):
        init["from"] = ""  # what the file says is overridden under either name
    for override in overrides:
        _override(config, override)
    join_names(init)
    _drop_budget(config, {override.partition("=")[0] for override in overrides})
    return config


def _drop_budget(config: ml_collections.ConfigDict, given: set[str]) -> None:
    """Lets steps that are given end a run, and not the time budget of its config file."""
    budget = config.get("train", {}).get("time_budget", "")
    if budget and "train.steps" in given and "train.time_budget" not in given:
        config.train.time_budget = ""
        log.info("train.steps is given: the config's train.time_budget=%s is dropped", budget)


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
    shipped = shipped_configs()
    name = file.removeprefix("configs/").removesuffix(".py")
    name = FORMER_NAMES.get(name, name)
    if name in shipped:
        return shipped[name]
    raise UsageError(
        f"no config file {file}{did_you_mean(name, shipped)}; "
        f"shipped with the package: {', '.join(shipped)}"
    )


def shipped_configs() -> dict[str, Path]:
    """The configs that are shipped, such as `pretrain/tiny`: name → file."""
    # In a wheel they lie in the package, in a checkout beside it.
    return {
        str(file.relative_to(root).with_suffix("")): file
        for root in (PACKAGE.parent / "configs", PACKAGE / "configs")
        for file in sorted(root.glob("*/*.py"))
        if file.stem != "__init__"
    }


class UnknownVariant(UsageError):
    """A variant that a config file does not know; `known` are those that it knows."""

    def __init__(self, variant: str, known: Sequence[str]) -> None:
        there = f"there are {', '.join(known)}" if known else "there are none"
        super().__init__(f"no variant {variant!r}{did_you_mean(variant, known)}; {there}")
        self.known = tuple(known)


def choose_variant(variant: str, known: Sequence[str]) -> str:
    """The variant, if a config file knows it.

    Raises:
      UnknownVariant: it does not.
    """
    if variant and variant not in known:
        raise UnknownVariant(variant, known)
    return variant


def _override(config: ml_collections.ConfigDict, override: str) -> None:
    path, equals, text = override.partition("=")
    names = {name: value for name, value in flatten_fields(config)}
    if not equals:
        raise UsageError(f"--config.{path} needs a value: --config.{path}=VALUE")
    if path not in names:
        hint = did_you_mean(f"--config.{path}", [f"--config.{name}" for name in names])
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


def join_names(init: Any) -> None:
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


def flatten_fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) pairs."""
    for name, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from flatten_fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
