"""Files and folders are whole or not there, whenever a process is killed."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from electra_jax.errors import UsageError
from electra_jax.system import atomic_files
from electra_jax.system.atomic_files import (
    MARK,
    atomic_folder,
    atomic_path,
    is_free,
    output_path,
    write_json,
    write_text,
)

ROOT = Path(__file__).parent.parent


def killed(code, *arguments):
    """Runs code that kills itself."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL


def fill(folder):
    (folder / "a").mkdir()
    (folder / "a" / "first").write_text("1")
    (folder / "last").write_text("2")


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


WHOLE = ["made", "made/a", "made/a/first", "made/last"]
KILL = """
import os, pathlib, sys
from electra_jax.system import atomic_files
from electra_jax.system.atomic_files import atomic_folder
die = lambda *_: os.kill(os.getpid(), 9)
"""
MOMENTS = {
    "while it is written": "",
    "before it is renamed": "pathlib.Path.rename = die",
    "after it was renamed": "pathlib.Path.unlink = die",
    "between two moves": """
def no_rename(*_):
    raise OSError(16, "busy")
pathlib.Path.rename = no_rename
real, moved = atomic_files.shutil.move, []
atomic_files.shutil.move = lambda *a: (die() if moved else moved.append(real(*a)))
""",
}
WRITE = """
with atomic_folder(sys.argv[1], "last") as folder:
    (folder / "a").mkdir()
    (folder / "a" / "first").write_text("1")
    (folder / "last").write_text("2")
    if not sys.argv[2]:
        die()
"""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("there", [False, True])
def test_after_a_kill_the_same_command_ends_the_work(moment, there, tmp_path):
    if there:
        (tmp_path / "made").mkdir()
    killed(KILL + MOMENTS[moment] + WRITE, tmp_path / "made", MOMENTS[moment])
    assert is_free(tmp_path / "made")
    with atomic_folder(tmp_path / "made", "last") as folder:
        assert names(folder) == [MARK]
        fill(folder)
    assert names(tmp_path) == WHOLE


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_nothing(there, tmp_path):
    if there:
        (tmp_path / "made").mkdir()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "made") as folder:
        fill(folder)
        raise ZeroDivisionError
    assert names(tmp_path) == ["made"] * there


def test_where_a_folder_cannot_be_renamed_it_is_filled_and_the_last_comes_last(
    tmp_path, monkeypatch
):
    """As mount points and mounted buckets."""
    moved = []
    real = atomic_files.shutil.move

    def move(source, target):
        moved.append(source.name)
        real(source, target)

    monkeypatch.setattr(atomic_files.shutil, "move", move)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "made")
    (tmp_path / "made").mkdir()
    with atomic_folder(tmp_path / "made", "a") as folder:
        assert folder.parent == tmp_path / "made"
        fill(folder)
    assert names(tmp_path) == WHOLE and moved == ["last", "a"]


def test_nothing_that_is_somebody_elses_is_removed_or_followed(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("mine")
    partial = tmp_path / ".made.partial"

    def refused(match="was not made by this program"):
        with pytest.raises(UsageError, match=match) as error, atomic_folder(tmp_path / "made"):
            pass
        assert "\n" not in str(error.value)
        assert (tmp_path / "theirs" / "file").read_text() == "mine"

    for target in (tmp_path / "theirs", tmp_path / "nowhere", partial):
        partial.symlink_to(target)
        refused()
        partial.unlink()
    partial.write_text("mine")
    refused()
    partial.unlink()
    (tmp_path / "theirs").rename(partial)
    refused_folder = partial / "file"
    with pytest.raises(UsageError, match="not made"), atomic_folder(tmp_path / "made"):
        pass
    assert refused_folder.read_text() == "mine"
    (partial / MARK).symlink_to("/etc/hostname")  # a link is not a mark of ours
    partial.rename(tmp_path / "made")
    with pytest.raises(UsageError, match="not empty"), atomic_folder(tmp_path / "made"):
        pass
    assert (tmp_path / "made" / "file").read_text() == "mine"


def test_two_at_once_are_refused_and_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "made")
    with atomic_folder(tmp_path / "made") as folder:
        with pytest.raises(UsageError, match="written by"), atomic_folder(tmp_path / "link"):
            pass
        fill(folder)
    assert names(tmp_path / "link") == [n.removeprefix("made/") for n in WHOLE[1:]]
    with pytest.raises(UsageError, match="not empty"), atomic_folder(tmp_path / "link"):
        pass
    with atomic_folder(tmp_path / "link", update=True) as folder:
        write_text(folder / "last", "3")
    assert (tmp_path / "made" / "last").read_text() == "3"


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "rename", full)
    cannot = pytest.raises(UsageError, match="made cannot be written: No space")
    with cannot, atomic_folder(tmp_path / "made") as folder:
        fill(folder)
    assert names(tmp_path) == []


def test_an_unfinished_file_of_a_dead_process_is_cleared_and_no_other(tmp_path):
    file = tmp_path / "x.json"
    code = (
        "import os, sys\nfrom electra_jax.system.atomic_files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as p: p.touch(); os.kill(os.getpid(), 9)"
    )
    killed(code, file)
    assert len(names(tmp_path)) == 1
    host = os.uname().nodename
    for other in (f"x.{host}-1.partial.json", "x.elsewhere-999999999.partial.json"):
        (tmp_path / other).touch()
    write_json(file, {})
    assert names(tmp_path) == sorted(
        ["x.json", f"x.{host}-1.partial.json", "x.elsewhere-999999999.partial.json"]
    )


def test_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    with atomic_path(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    (tmp_path / "nowhere").symlink_to("made")
    write_text(tmp_path / "nowhere", "\udcff")
    assert (tmp_path / "made").read_text() == "\\udcff"
    previous = os.umask(0o027)
    try:
        write_text(tmp_path / "fresh", "")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_devices_and_pipes_stay_what_they_are(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", "/dev/stdout", fifo, tmp_path / "link"):
        with output_path(path) as place:
            assert place == Path(path)
    (tmp_path / "file").touch()
    with output_path(tmp_path / "file") as place:
        assert place != tmp_path / "file"
        place.touch()
    with pytest.raises(IsADirectoryError), output_path(tmp_path):
        pass
    assert stat.S_ISFIFO(fifo.stat().st_mode) and (tmp_path / "link").is_symlink()


def test_what_a_thread_still_writes_does_not_outlive_the_next_try(tmp_path, monkeypatch):
    """As those of a checkpoint that could not be saved; it is still known for ours."""
    monkeypatch.setattr(atomic_files, "DISCARD_SECONDS", 0.0)
    real = Path.rmdir

    def rmdir(self):
        (self / "late").write_text("")
        real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rmdir", rmdir)
        with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "made") as folder:
            raise ZeroDivisionError
    assert names(tmp_path) == [".made.partial", f".made.partial/{MARK}", ".made.partial/late"]
    with atomic_folder(tmp_path / "made") as folder:
        fill(folder)
    assert names(tmp_path) == WHOLE
