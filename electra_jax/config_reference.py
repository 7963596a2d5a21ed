"""What there is to configure: the shipped configs, and every field with what it means.

A field is described by the comment beside it, or right above it, in the dataclass that declares it.
"""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.config import (
    FinetuneConfig,
    PretrainConfig,
    config_fields,
    finetune_config,
    load_config,
    pretrain_config,
)
from electra_jax.config_files import UnknownVariant, shipped_configs

WIDTH = 100
# Those of which docs/configs.md lists the fields.
DESCRIBED = (
    "pretrain/small", "finetune/classification", "finetune/classification:regression",
    "finetune/tagging", "finetune/intent_slots", "finetune/question_answering", "finetune/choice",
    "finetune/retrieval", "finetune/retrieval:rerank", "finetune/summarization",
    "finetune/summarization:abstractive",
)  # fmt: skip


class Field(NamedTuple):
    """A field of a config: such as train.steps, int, 1000000, "after which the run ends"."""

    name: str
    kind: str
    value: Any
    text: str


class ShippedConfig(NamedTuple):
    """A config that is shipped, the first line of its text, and its variants."""

    name: str
    text: str
    variants: tuple[str, ...]


def read_config(spec: str) -> PretrainConfig | FinetuneConfig:
    """The config of FILE[:variant], of whichever kind it is.

    Raises:
      UsageError: see `load_config`.
    """
    fields = load_config(spec)
    return finetune_config(fields) if "task" in fields else pretrain_config(fields)


def describe_fields(config: PretrainConfig | FinetuneConfig) -> Iterator[Field]:
    """The fields of a config in the order of their sections."""
    for section, values in config_fields(config).items():
        texts = comments(type(getattr(config, section)))
        for name, value in values.items():
            yield Field(f"{section}.{name}", type(value).__name__, value, texts.get(name, ""))


def comments(kind: type) -> dict[str, str]:
    """What the comments of a dataclass say about its fields and those of its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            found.update((name, text) for name, text in _own_comments(base) if text)
    return found


def _own_comments(kind: type) -> Iterator[tuple[str, str]]:
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    # Of each line with a comment: whether nothing else stands in it, and the text.
    by_line = {
        token.start[0]: (token.line.strip().startswith("#"), token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT and not token.string.startswith(("# fmt", "# noqa"))
    }
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        beside = [by_line[n][1] for n in range(node.lineno, _end(node) + 1) if n in by_line]
        above: list[str] = []
        line = node.lineno - 1
        while by_line.get(line, (False, ""))[0]:
            above.insert(0, by_line[line][1])
            line -= 1
        yield node.target.id.removesuffix("_"), " ".join(beside or above)


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def list_configs() -> list[ShippedConfig]:
    """The configs that are shipped."""
    return [
        ShippedConfig(name, _first_line(path), _variants(name))
        for name, path in shipped_configs().items()
    ]


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def _variants(name: str) -> tuple[str, ...]:
    try:
        load_config(f"{name}:?")
    except UnknownVariant as error:
        return error.known
    return ()


def render_configs() -> str:
    """The shipped configs for the terminal: a name, a line of text, the variants."""
    lines = []
    for config in list_configs():
        lines += [config.name, *_wrap(config.text)]
        if config.variants:
            lines += _wrap(f"variants: {', '.join(config.variants)}")
    lines += ["", "All fields of one: electra-jax config NAME[:VARIANT]"]
    return "\n".join(lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")


def render_fields(spec: str) -> str:
    """The fields of a config for the terminal, as they are given on the command line.

    Raises:
      UsageError: see `load_config`.
    """
    fields = list(describe_fields(read_config(spec)))
    given = [f"--config.{field.name}={_value(field)}" for field in fields]
    width = max(map(len, given))
    return "\n".join(
        f"{text:{min(width, 44)}}  {field.text}".rstrip()
        for text, field in zip(given, fields, strict=True)
    )


def _value(field: Field) -> str:
    return str(field.value).lower() if isinstance(field.value, bool) else f"{field.value}"


def render_markdown() -> str:
    """docs/configs.md: the shipped configs, and all fields with their defaults."""
    lines = [
        "# Configs",
        "",
        "Made by `python -m electra_jax.config_reference > docs/configs.md`. On the command line",
        "`electra-jax configs` lists what is shipped, and `electra-jax config NAME` prints all",
        "fields of one with their values.",
        "",
        "## Shipped",
        "",
        "| config | variants | |",
        "|---|---|---|",
    ]
    for shipped in list_configs():
        variants = ", ".join(f"`{variant}`" for variant in shipped.variants)
        lines.append(f"| `{shipped.name}` | {variants} | {shipped.text} |")
    lines += [
        "",
        "## Fields",
        "",
        "Each is given as `--config.SECTION.FIELD=VALUE`. A config is listed with the fields that",
        "those above it have not.",
    ]
    described: set[str] = set()
    for spec in DESCRIBED:
        config = read_config(spec)
        fields = [f for f in describe_fields(config) if _place(f, config) not in described]
        described.update(_place(field, config) for field in fields)
        lines += ["", f"### {spec}", *_tables(fields)]
    return "\n".join(lines) + "\n"


def _place(field: Field, config: PretrainConfig | FinetuneConfig) -> str:
    """What tells a field from those that are described already."""
    kind = type(config).__name__ if field.name.startswith(("train.", "init.", "optimizer.")) else ""
    return f"{kind} {field.name}"


def _tables(fields: list[Field]) -> Iterator[str]:
    section = ""
    for field in fields:
        if field.name == "task.name":
            continue
        if section != field.name.partition(".")[0]:
            section = field.name.partition(".")[0]
            yield from ("", "| field | type | default | |", "|---|---|---|---|")
        value = f"`{_value(field)}`" if str(field.value) else ""
        text = field.text.replace("|", "\\|")
        yield f"| `{field.name}` | {field.kind} | {value} | {text} |"


if __name__ == "__main__":
    print(render_markdown(), end="")
