"""Small files read on the guard."""

import os

import pytest

from electra_jax.errors import UsageError
from electra_jax.system.json_files import read_bytes, read_object, reading


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "delimiter"),
        (b"\xff\xfe{", "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[1, 2]", "a list, not an object"),
        (b"null", "not an object"),
        (b"1" * 5000, "digits"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path, content, reason):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        read_object(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "loop", "missing", "."):
        with pytest.raises(UsageError, match=name):
            read_object(tmp_path / name)


def test_a_large_file_is_not_read(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(b"x" * 11)
    assert read_bytes(file, most=11) == b"x" * 11
    with pytest.raises(UsageError, match="11 bytes, and at most 10"):
        read_bytes(file, most=10)


@pytest.mark.parametrize("error", [KeyError("step"), IndexError("list index"), OverflowError("x")])
def test_what_a_file_lacks_is_told(error):
    with pytest.raises(UsageError, match=r"^a\.json cannot be read: ") as caught, reading("a.json"):
        raise error
    assert caught.value.__cause__ is error


def test_a_message_is_not_given_its_file_twice():
    with pytest.raises(UsageError, match=r"^a\.json is empty$"), reading("a.json"):
        raise UsageError("a.json is empty")
