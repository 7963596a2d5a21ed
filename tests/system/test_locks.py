"""One writer for each directory, whatever became of the one before."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from electra_jax.errors import UsageError
from electra_jax.system import locks
from electra_jax.system.locks import LOCK_FILE, one_writer

HOLDS = """
import sys, time
from electra_jax.system.locks import one_writer
with one_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
FORKS = """
import os, sys, time
from electra_jax.system.locks import one_writer
with one_writer(sys.argv[1]):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def start(folder, program=HOLDS):
    process = subprocess.Popen(
        [sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def without_locks(monkeypatch):
    """As on a file system that has none."""

    def lockf(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.01)


@pytest.mark.parametrize("supported", [True, False])
def test_the_second_is_told_who_writes_and_a_dead_one_is_in_nobodys_way(
    supported, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    process, _ = start(folder)
    if not supported:
        without_locks(monkeypatch)
    told = pytest.raises(UsageError, match=f"another process .{process.pid} on .*since 20")
    with told as error, one_writer(folder):
        pass
    assert "\n" not in str(error.value) and "-c" in str(error.value)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / LOCK_FILE).exists()
    with one_writer(folder):
        (folder / "written").touch()
    assert os.listdir(folder) == ["written"]


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path):
    process, child = start(tmp_path, FORKS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        with one_writer(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.stdout.close()


def test_the_lock_of_another_host_is_taken_once_it_is_touched_no_more(tmp_path, monkeypatch):
    """As where locks do not reach other hosts, or there are none."""
    monkeypatch.setattr(locks, "WATCH_SECONDS", 1.5)
    elsewhere = {"host": "elsewhere", "machine": "elsewhere 1", "pid": os.getpid(), "since": "now"}
    file = tmp_path / LOCK_FILE
    file.write_text(json.dumps(elsewhere))
    beats = subprocess.Popen(["sh", "-c", f"while sleep 0.2; do touch {file}; done"])
    try:
        time.sleep(0.5)
        with pytest.raises(UsageError, match="on elsewhere"), one_writer(tmp_path):
            pass
        assert json.loads(file.read_text()) == elsewhere
    finally:
        beats.kill()
        beats.wait()
    with one_writer(tmp_path):
        assert json.loads(file.read_text())["pid"] == os.getpid()


def test_a_rebooted_host_is_not_waited_for(tmp_path, monkeypatch):
    """Whose number of a process another one has now."""
    without_locks(monkeypatch)
    monkeypatch.setattr(locks, "WATCH_SECONDS", 0.1)
    mine = locks._describe()
    for change in ({"started": "1"}, {"machine": f"{mine['host']} another boot"}):
        (tmp_path / LOCK_FILE).write_text(json.dumps(mine | change))
        with one_writer(tmp_path):
            pass


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 10_000, b"[1]", b"{}"])
def test_a_damaged_lock_file_is_in_nobodys_way(content, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WATCH_SECONDS", 0.1)
    (tmp_path / LOCK_FILE).write_bytes(content)
    with one_writer(tmp_path):
        pass


def test_not_even_the_same_process_writes_twice(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with one_writer(tmp_path):
        for name in (tmp_path, tmp_path / "link"):
            with pytest.raises(UsageError, match="by this process already"), one_writer(name):
                pass


def test_what_cannot_be_locked_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("file", "loop", "file/below"):
        with pytest.raises(UsageError, match="cannot be"), one_writer(tmp_path / name):
            pass
    os.mkfifo(tmp_path / LOCK_FILE)
    with pytest.raises(UsageError, match="in the way"), one_writer(tmp_path):
        pass


def test_a_folder_made_for_the_lock_alone_is_gone_again(tmp_path):
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()
