"""What a worker of a TPU does: the program outlives its starter, and tells how it ended."""

import os
import signal
import subprocess
import time

import pytest

PROGRAM = """#!/usr/bin/env bash
trap 'echo saved; exit 75' TERM
echo "words: $*"
echo "cache: ${JAX_COMPILATION_CACHE_DIR:-}"
[[ $1 != wait ]] || while :; do sleep 0.05; done
exit "$2"
"""


@pytest.fixture
def worker(checkout, environment, commands, tmp_path):
    """Calls tpu_worker.sh where cloud_tpu.sh copies it to, with a stand-in for the program."""
    folder = tmp_path / "home" / "electra-jax"
    (folder / "venv" / "bin").mkdir(parents=True)
    program = folder / "venv" / "bin" / "electra-jax"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    script = folder / "tpu_worker.sh"
    script.write_bytes((checkout / "launch" / "tpu_worker.sh").read_bytes())
    commands.stand_in("gcsfuse", "gcloud", "python3", "mountpoint")
    commands.answer("mountpoint", status=1, times=99)

    def call(*words):
        return subprocess.run(
            ["bash", "electra-jax/tpu_worker.sh", *words],
            cwd=folder.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    call.folder = folder
    yield call
    call("stop", "0")


def wait_for(worker, answer: str) -> None:
    for _ in range(400):
        status = worker("status").stdout
        if status == f"electra-jax: {answer}\n":
            return
        time.sleep(0.05)
    raise AssertionError(f"{status!r}, not {answer!r}: {(worker.folder / 'log').read_text()}")


@pytest.mark.parametrize("status", ["0", "2", "75", "1"])
def test_the_program_tells_how_it_ended(worker, status):
    wait_for(worker, "not started")
    assert worker("start", "end", status, "a 'b'").returncode == 0
    wait_for(worker, f"ended {status}")
    assert f"words: end {status} a 'b'" in (worker.folder / "log").read_text()


def test_it_starts_once(worker):
    assert worker("start", "wait").returncode == 0
    wait_for(worker, "running")
    again = worker("start", "wait")
    assert again.returncode == 3
    assert "running already" in again.stderr
    assert (worker.folder / "log").read_text().count("words:") == 1


@pytest.mark.slow
def test_a_stopped_program_saves_and_starts_again(worker):
    worker("start", "wait")
    wait_for(worker, "running")
    worker("stop", "20")
    wait_for(worker, "ended 75")
    assert worker("start", "end", "0").returncode == 0
    wait_for(worker, "ended 0")
    log = (worker.folder / "log").read_text()
    assert "saved" in log and log.count("words:") == 2


def test_a_killed_program_has_not_finished(worker):
    worker("start", "end", "0")
    wait_for(worker, "ended 0")
    worker("start", "wait")
    wait_for(worker, "running")
    os.killpg(int((worker.folder / "group").read_text()), signal.SIGKILL)
    wait_for(worker, "ended 137")


@pytest.mark.slow
def test_a_program_that_heeds_nothing_is_killed(worker):
    program = worker.folder / "venv" / "bin" / "electra-jax"
    program.write_text("#!/usr/bin/env bash\ntrap '' TERM\nwhile :; do sleep 0.05; done\n")
    worker("start", "wait")
    wait_for(worker, "running")
    worker("stop", "1")
    wait_for(worker, "ended 137")


def test_compiled_programs_are_kept_in_the_bucket(worker, commands):
    worker("mount", "texts")
    (call,) = commands.calls("gcsfuse")
    assert call[-2:] == ["texts", "bucket"]
    # Other workers' files are seen at once.
    assert "--metadata-cache-ttl-secs 0 --metadata-cache-negative-ttl-secs 0" in " ".join(call)
    commands.forget_answers()  # from here on it is mounted
    worker("mount", "texts")
    assert len(commands.calls("gcsfuse")) == 1
    worker("start", "end", "0")
    wait_for(worker, "ended 0")
    assert f"cache: {worker.folder}/bucket/xla-cache" in (worker.folder / "log").read_text()


def test_install_takes_the_tested_versions_and_a_newer_python(worker, commands):
    commands.stand_in("uv")
    uv = worker.folder.parent / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(f'#!/bin/sh\nexec {commands.folder}/uv "$@"\n')
    uv.chmod(0o755)
    assert worker("install", "electra_jax-1-py3-none-any.whl").returncode == 0
    assert worker("install", "git+https://host/it@v1").returncode == 0
    wheel, git = (call for call, _ in commands.records() if "install" in call)
    assert wheel[-1] == f"electra-jax[tpu] @ file://{worker.folder}/electra_jax-1-py3-none-any.whl"
    assert "--constraint" in wheel and "requirements.txt" in wheel
    assert git[-1] == "electra-jax[tpu] @ git+https://host/it@v1"
    assert "--constraint" not in git
    assert all("3.13" in call for call in commands.calls("venv"))
