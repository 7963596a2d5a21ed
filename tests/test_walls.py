"""The walls of docs/architecture.md: who may import whom, and who may import what."""

import ast
from pathlib import Path

import pytest

import electra_jax

ROOT = Path(electra_jax.__file__).parent
# May be imported from everywhere.
EVERYONE = {"errors", "plugins", "system"}
# What each room may import besides.
MACHINERY = {"models", "data", "parallel", "objectives", "training", "tasks", "interop"}
GROUND = MACHINERY | {"config", "config_files", "placement", "run_directory"}
ROOMS = {
    "errors": set(),
    "system": set(),
    "plugins": set(),
    "models": set(),
    "data": set(),
    "parallel": set(),
    "objectives": {"models"},
    "training": {"parallel"},
    "tasks": {"models", "data"},
    "interop": {"models", "data", "tasks", "training"},
    "config_files": set(),
    "config": MACHINERY - {"interop"} | {"config_files"},
    "placement": {"models", "parallel", "config"},
    "run_directory": {"config"},
    "inference": GROUND,
    "pretraining": GROUND | {"inference"},
    "finetuning": GROUND | {"inference"},
    "planning": GROUND | {"pretraining"},
    "reporting": GROUND | {"pretraining", "finetuning"},
}
COMPOSERS = {
    "api", "config_reference", "evaluation", "exchange", "quickstart", "replay", "report", "verify",
}  # fmt: skip
# Only these files may import what makes meshes, checkpoints and tf.data pipelines.
OWNERS = {
    "apache_beam": {"data/beam.py"},
    "jax._src": {"parallel/jax_internals.py"},
    "orbax": {"training/checkpoint.py"},
    "tensorflow": {"data/sampler.py", "data/documents.py", "interop/tensorflow1.py"},
    "tensorflow_datasets": {"data/documents.py"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(file: Path):
    """(module, whether it is imported when the file is) pairs."""
    tree = ast.parse(file.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            yield node.module, id(node) in top


def room(name: str) -> str:
    """The first part of a module's name below the package."""
    return name.removeprefix("electra_jax").lstrip(".").split(".")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_one_way(file):
    here = file.relative_to(ROOT).with_suffix("").parts[0]
    for module, _ in imports(file):
        if module.split(".")[0] != "electra_jax" or module == "electra_jax":
            continue
        there = room(module)
        if here in ROOMS:
            assert there in ROOMS[here] | EVERYONE | {here}, f"{here} imports {module}"
        elif here not in ("cli", "command_line", "__main__"):
            assert there not in ("cli", "command_line", "__main__"), f"{here} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_libraries_have_one_door(file):
    name = str(file.relative_to(ROOT))
    for module, at_once in imports(file):
        package = module.split(".")[0]
        for owned, owners in OWNERS.items():
            if f"{module}.".startswith(f"{owned}."):
                assert name in owners, f"{name} imports {owned}"
        if package.startswith("tensorflow"):
            assert not at_once, f"{name} imports {package} before it is needed"
        if name.startswith("data/"):
            assert package not in ("jax", "flax", "optax"), f"{name} imports {package}"


def test_only_mesh_makes_a_mesh():
    for file in FILES:
        if file.name != "mesh.py":
            assert "jax.make_mesh" not in file.read_text(), file
            assert " Mesh(" not in file.read_text(), file


def test_every_module_has_its_place():
    """A new room is a decision: it is named here and in docs/architecture.md."""
    # In a wheel the shipped configs lie in the package, too.
    known = set(ROOMS) | COMPOSERS | {"cli", "command_line", "__main__", "__init__", "configs"}
    assert {file.relative_to(ROOT).with_suffix("").parts[0] for file in FILES} <= known


def test_files_are_read_in_one_sitting():
    long = {f.name: n for f in FILES if (n := len(f.read_text().splitlines())) > 450}
    assert not long
