"""Benchmarks, which no other test runs: what they import is there."""

import ast
import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
LOCAL = {file.stem: file for file in BENCHMARKS}


def defined(file):
    """Names that a module of the folder binds at its top."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {x.id for target in node.targets for x in ast.walk(target) if hasattr(x, "id")}
    return names


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_imports_are_there(file):
    """A name that has moved: the day a GPU is lent is a bad day to find out."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.module in LOCAL:
            there = defined(LOCAL[node.module])
        elif node.module.split(".")[0] == "electra_jax":
            there = set(dir(importlib.import_module(node.module)))
        else:
            continue
        for name in node.names:
            if name.name not in there:  # or a module in a package
                importlib.import_module(f"{node.module}.{name.name}")
