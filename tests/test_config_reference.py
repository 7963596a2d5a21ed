"""What is said of configs: every field, every shipped config, and the page of the docs."""

from pathlib import Path

import pytest

from electra_jax.cli import main
from electra_jax.config_reference import (
    describe_fields,
    list_configs,
    read_config,
    render_markdown,
)

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("config", list_configs(), ids=lambda config: config.name)
def test_every_field_says_what_it_means(config):
    for variant in ("", *config.variants):
        for field in describe_fields(read_config(f"{config.name}:{variant}")):
            assert field.text, f"{field.name} of {config.name}: a comment is missing"


def test_shipped_configs_are_listed_with_their_variants(capsys):
    assert main(["configs"]) == 0
    output = capsys.readouterr().out
    assert "pretrain/tiny\n    A tiny encoder" in output
    assert "variants: modern, released, short, modern-short" in output


def test_fields_are_printed_as_they_are_given(capsys):
    assert main(["config", "pretrain/tiny:overnight"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "--config.train.time_budget=10h" in " ".join(lines).split()
    [line] = [line for line in lines if line.startswith("--config.model.layers=4 ")]
    assert line.endswith("of the discriminator")


def test_the_page_of_the_docs_is_current():
    """Made by `python -m electra_jax.config_reference > docs/configs.md`."""
    assert (DOCS / "configs.md").read_text() == render_markdown()
