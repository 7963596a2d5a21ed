"""Classes are found by name in folders, entry points and plugins, and nowhere twice."""

import abc
import gc
import importlib
import json
import sys
from typing import ClassVar

import pytest

import electra_jax.objectives
from electra_jax import cli, plugins
from electra_jax.errors import UsageError
from electra_jax.objectives import find_objective, objectives
from electra_jax.objectives.objective import Objective
from electra_jax.run_directory import read_any_config
from electra_jax.tasks import find_task, tasks
from electra_jax.tasks.task import Task


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """(name, text) → a module in a folder on Python's path; after the test its classes are gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(name, text=""):
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        plugins._import_all.cache_clear()
        importlib.invalidate_caches()

    yield write
    files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
    for name in [name for name, file in files.items() if file.startswith(str(tmp_path))]:
        del sys.modules[name]
        vars(electra_jax.objectives).pop(name.rpartition(".")[2], None)
    plugins._import_all.cache_clear()
    gc.collect()


def detection(name, parent="ReplacedTokenDetection"):
    return (
        f"from electra_jax.objectives.replaced_token import ReplacedTokenDetection\n"
        f"class Base(ReplacedTokenDetection):\n    pass\n"
        f"class Mine({parent}):\n    name = {name!r}\n"
    )


def tagging(name):
    return (
        f"from electra_jax.tasks.tagging import Tagging\n"
        f"class Mine(Tagging):\n    name = {name!r}\n"
    )


def entry_point(tmp_path, group, value):
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nany = {value}\n")


def test_only_classes_with_a_name_of_their_own_are_found():
    for found, base in ((objectives(), Objective), (tasks(), Task)):
        assert len(found) > 5 and "" not in found
        assert all(issubclass(kind, base) and kind.name == name for name, kind in found.items())
        assert all(not getattr(kind, "__abstractmethods__", ()) for kind in found.values())
    assert len(set(tasks().values())) == len(tasks())


def test_a_file_in_the_folder_adds_an_objective(modules, tmp_path, monkeypatch):
    modules("more.weighted", detection("mine"))
    folder = [*electra_jax.objectives.__path__, str(tmp_path / "more")]
    monkeypatch.setattr(electra_jax.objectives, "__path__", folder)
    assert find_objective("mine").__module__ == "electra_jax.objectives.weighted"


def test_an_import_adds_and_the_last_of_a_reloaded_module_counts(modules):
    modules("weighted", detection("mine", "Base"))
    with pytest.raises(UsageError, match="'mine' is unknown; use .*electra.* --plugin MODULE"):
        find_objective("mine")
    module = importlib.import_module("weighted")
    before = module.Mine
    assert find_objective("mine") is before
    importlib.reload(module)
    assert find_objective("mine") is module.Mine is not before


def test_an_entry_point_adds(modules, tmp_path):
    modules("mine", tagging("mine"))
    entry_point(tmp_path, "electra_jax.tasks", "mine:Mine")
    assert find_task("mine").__module__ == "mine"


def test_a_broken_entry_point_is_named(modules, tmp_path):
    modules("mine", "\nraise ValueError('two\\nlines')\n")
    entry_point(tmp_path, "electra_jax.objectives", "mine")
    with pytest.raises(UsageError, match=r"any of mine .*: ValueError: two lines \(.*mine.py:2\)"):
        objectives()


def test_a_class_that_lacks_part_of_its_contract_is_refused_only_if_it_is_chosen():
    class Contract(abc.ABC):
        name: ClassVar[str]
        head: ClassVar[str]
        generates: ClassVar[bool] = False

        @abc.abstractmethod
        def losses(self): ...

    class Half(Contract):
        name = "half"

    found = plugins.find_classes(Contract, "electra_jax.plugins")
    assert found == {"half": Half}
    with pytest.raises(UsageError, match="objective.name='half': .*Half lacks head, losses"):
        plugins.choose(found, "objective.name", "half")


def fails(capsys, *argv):
    assert cli.main(list(argv)) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--plugin mine cannot be imported: ModuleNotFoundError: No module named 'mine'"),
        ("\n1 / 0\n", "mine.py:2)"),
        ("class:\n", "SyntaxError: invalid syntax (mine.py, line 1)"),
        (detection("electra"), "mine.Mine are both named 'electra': rename one"),
    ],
)
def test_a_plugin_that_cannot_serve_is_refused_in_one_line(modules, capsys, text, message):
    if text is not None:
        modules("mine", text)
    plan = ["plan", "--config", "pretrain/tiny", "--json"]
    assert message in fails(capsys, *plan, "--plugin", "mine")


@pytest.mark.parametrize("section", ["objective", "task"])
def test_a_run_of_an_unknown_plugin_says_what_to_give(modules, tmp_path, capsys, section):
    fields = {"version": 1, section: {"name": "theirs"}, "optimizer": {"warmup_steps": 0}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    command = ["report", "--workdir", str(tmp_path)]
    line = fails(capsys, *command)
    assert f"config.json: {section}.name='theirs' is unknown" in line and "--plugin MODULE" in line
    modules("first", detection("theirs"))
    modules("second", tagging("theirs"))
    # Both are imported, and the command comes further: there is nothing to report.
    line = fails(capsys, *command, "--plugin", "first", "--plugin", "second")
    assert "nothing to report" in line
    assert read_any_config(tmp_path)


def test_processes_compare_the_code_of_plugins(modules):
    modules("mine", "")
    plugins.import_plugin("mine")
    first = plugins.fingerprint(["mine"])
    modules("mine", "x = 1\n")
    assert first.keys() == plugins.fingerprint(["mine"]).keys() == {"the code of --plugin mine"}
    assert first != plugins.fingerprint(["mine"])
