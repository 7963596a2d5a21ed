"""The table of planted faults fits the code and the tests as they are."""

import ast

import planted_faults
import pytest
from planted_faults import FAULTS, ROOT, Fault, judge, main, plant

ALL = [fault for faults in FAULTS.values() for fault in faults]
CATEGORIES = {
    "masking", "sampling", "loss counts", "packing", "attention mask", "rotary", "norms",
    "optimizer", "clip", "schedule", "resume", "order over hosts", "sharding", "tokenizer",
    "readers", "metrics", "export names",
}  # fmt: skip


def test_every_category_has_faults_of_their_own_names():
    assert set(FAULTS) >= CATEGORIES and all(FAULTS.values())
    assert len({fault.name for fault in ALL}) == len(ALL) >= 25


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault):
    code = (ROOT / fault.file).read_text("utf-8")
    assert code.count(fault.old) == 1 and fault.old != fault.new
    ast.parse(code.replace(fault.old, fault.new))
    file, _, test = fault.test.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text("utf-8")


@pytest.mark.parametrize(
    ("status", "output", "caught", "words"),
    [
        (1, "FAILED a.py::test[x y] - assert 1 == 2", True, "caught by a.py::test[x y]"),
        (0, "1 passed", False, "NOT caught"),
        (1, "ERROR tests/test_a.py - ImportError", False, "BROKEN"),
        (2, "interrupted", False, "BROKEN"),
        (5, "1 deselected", False, "BROKEN"),
    ],
)
def test_only_a_failed_test_catches(status, output, caught, words):
    found = judge(status, output)
    assert found[0] is caught and found[1].startswith(words)


def test_a_planted_file_is_restored(tmp_path, monkeypatch):
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    seen = []

    def run_tests(folder, tests):
        seen.append((file.read_text(), tests))
        raise KeyboardInterrupt

    monkeypatch.setattr(planted_faults, "run_tests", run_tests)
    with pytest.raises(KeyboardInterrupt):
        plant(Fault("name", "a.py", "1", "2", "test"), tmp_path)
    assert seen == [("x = 2\n", ["test"])] and file.read_text() == "x = 1\n"


def test_a_wrong_name_is_one_line(capsys):
    assert main([ALL[0].name, ALL[1].name[:-1]]) == 2
    error = capsys.readouterr().err
    assert f"did you mean {ALL[1].name}?" in error and error.count("\n") == 1
