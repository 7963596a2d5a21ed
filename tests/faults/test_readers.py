"""A short part of the fuzzing of all readers; `make faults` has the long one."""

import pytest
from fuzzing import Cases, Failed, judge
from readers import READERS

CASES = 8  # of each reader
SLOW = {"TensorFlow 1"}  # to import


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in READERS],
)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    cases = Cases(name, 0, tmp_path / "files")
    found = [cases.run(case) for case in range(CASES)]
    assert not [outcome for outcome in found if outcome["outcome"] == "failed"]


def no_end():
    while True:
        pass


@pytest.mark.parametrize("read", [lambda: {}["key"], lambda: [0] * 2**45, no_end])
def test_the_judge_is_not_deceived(read, monkeypatch):
    monkeypatch.setattr("fuzzing.SECONDS", 0.2)
    with pytest.raises(Failed):
        judge(read)
