"""Declared ranges and tested versions agree."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import electra_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {"requirements.txt": "3.13", "requirements-3.11.txt": "3.11"}


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    return {one.name.lower(): str(one.specifier)[2:] for one in map(Requirement, lines)}


def declared(python: str):
    """Requirements of the package and its tests that apply on Linux."""
    environment = {
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "python_version": python,
    }
    for one in map(Requirement, [*PROJECT["dependencies"], *EXTRAS["test"]]):
        if one.marker is None or one.marker.evaluate(environment):
            yield one


@pytest.mark.parametrize("file", PINS)
def test_tested_versions_lie_in_the_declared_ranges(file):
    tested = pins(file)
    for one in declared(PINS[file]):
        assert one.specifier.contains(tested[one.name.lower()]), f"{one} in {file}"


def test_oldest_tested_versions_are_the_lower_bounds():
    tested = pins("requirements-3.11.txt")
    for one in declared("3.11"):
        [lower] = [part.version for part in one.specifier if part.operator == ">="]
        assert Version(tested[one.name.lower()]) == Version(lower), one


def test_all_shipped_configs_are_packages():
    folders = {file.parent.name for file in (ROOT / "configs").glob("*/__init__.py")}
    setup = (ROOT / "setup.py").read_text()
    assert folders and all(f"{{CONFIGS}}.{name}" in setup for name in folders)


def test_pythons_are_those_that_make_looks_for():
    script = (ROOT / "launch" / "find_python.sh").read_text()
    for name in PROJECT["classifiers"]:
        version = name.rpartition(" :: ")[2]
        if version.startswith("3."):
            assert version in script
            assert Requirement(f"x{PROJECT['requires-python']}").specifier.contains(version)


def test_files_of_the_repository_name_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == electra_jax.__version__
    assert f"## {electra_jax.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_minimal_requirements_lack_tensorflow_alone():
    """And what it brings: all other dependencies are installed from this list."""
    minimal = (ROOT / "requirements-minimal.txt").read_text().splitlines()
    left_out = set(PROJECT["dependencies"]) - set(minimal)
    names = {Requirement(one).name for one in left_out}
    assert names == {
        "tensorflow", "tensorflow-cpu", "tensorflow-datasets", "importlib-resources",
    }  # fmt: skip
    assert set(minimal) < set(PROJECT["dependencies"])


NAMED_EXTRA = re.compile(r"pip\s+install\s+'?(\S*?)\[([\w,-]+)\]")


def test_extras_are_named_as_a_checkout_installs_them():
    """The package lies on no index: `pip install 'electra-jax[plan]'` would find nothing."""
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("electra_jax/**/*.py")]
    found = [
        (file.name, *match)
        for file in files
        for match in NAMED_EXTRA.findall(" ".join(file.read_text().split()))
    ]
    assert len(found) > 4
    for file, package, extras in found:
        assert not package.startswith("electra"), file
        if package == ".":
            assert set(extras.split(",")) <= set(EXTRAS), file


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution of a copy of the checkout."""
    pytest.importorskip("build", reason="build is not installed (extra full)")
    source = tmp_path_factory.mktemp("build") / "source"
    ignored = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist"]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [wheel] = (source / "dist").glob("*.whl")
    [archive] = (source / "dist").glob("*.tar.gz")
    return wheel, archive


@pytest.mark.full
def test_the_wheel_holds_the_package_and_nothing_else(built):
    """A package that setup.py does not name would be missing, tests would be installed."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        about = wheel.read(metadata).decode()
    expected = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "electra_jax").rglob("*")
        if file.suffix == ".py" or file.name == "py.typed"
    }
    expected |= {f"electra_jax/{f.relative_to(ROOT)}" for f in (ROOT / "configs").rglob("*.py")}
    assert names == expected
    assert "License-Expression: Apache-2.0" in about
    assert "Author: electra-jax contributors" in about


@pytest.mark.full
def test_an_index_would_take_what_is_built(built):
    pytest.importorskip("twine", reason="twine is not installed (extra full)")
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= names
    assert "configs/pretrain/tiny.py" in names
