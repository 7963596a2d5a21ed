"""Standard streams that are closed, full or gone, and all that is told beside a command's work."""

import subprocess
import sys
from pathlib import Path

import pytest

# What commands do on their way: results, a bar, warnings, threads and libraries that fail.
PROGRAM = """
import logging, sys, threading
from tqdm import tqdm
from electra_jax import cli

class Broken:
    def __del__(self):
        raise ValueError("in a finaliser")

def fail():
    raise RuntimeError("in a thread\\nthat nobody waits for")

def run(args):
    for _ in tqdm(range(3)):
        logging.getLogger("electra_jax.x").warning("a warning")
    try:
        fail()
    except RuntimeError:
        logging.getLogger("absl").exception("a library failed")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Broken()
    input_ = sys.stdin.read()
    opened = open(args.workdir, "w")
    print("a result \\udcff\\n" * 10_000)
    opened.write("in the file")

cli.COMMANDS["report"] = run
sys.exit(cli.main())
"""


def run(tmp_path, redirections):
    """Its status, and what it has told on standard error, if that is a file."""
    error = tmp_path / "error"
    script = f"exec {sys.executable} -c '{PROGRAM}' report --workdir {tmp_path}/file {redirections}"
    done = subprocess.run(
        ["bash", "-c", script.replace("ERROR", str(error))], cwd=Path(__file__).parent.parent,
        timeout=60, check=False,
    )  # fmt: skip
    said = error.read_text() if error.exists() else ""
    assert "Traceback" not in said and "Exception ignored" not in said
    return done.returncode, said


@pytest.mark.parametrize(
    "redirections",
    [
        "</dev/null >/dev/null 2>ERROR", "<&- >/dev/null 2>ERROR", "</dev/null >&- 2>ERROR",
        "</dev/null >/dev/null 2>&-", "<&- >&- 2>&-", "</dev/null >/dev/null 2>/dev/full",
        "</dev/null 2>ERROR | head -c 10 >/dev/null", "</dev/null 2>&1 >/dev/null | true",
    ],
)  # fmt: skip
def test_streams_that_are_closed_or_gone_are_no_reason_to_fail(redirections, tmp_path):
    status, said = run(tmp_path, redirections)
    assert status == 0
    if "ERROR" in redirections:
        assert said.count("a warning\n") == 3
        assert "a library failed\n" in said and "in the background: in a thread\n" in said
    if "|" not in redirections:
        # No stream's number was given to it.
        assert (tmp_path / "file").read_text() == "in the file"


def test_results_that_cannot_be_written_are_told(tmp_path):
    status, said = run(tmp_path, "</dev/null >/dev/full 2>ERROR")
    assert status == 1
    line = "electra-jax: standard output: No space left on device"
    assert said.splitlines()[-1] == line


def test_the_current_directory_may_have_been_removed(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    root = Path(__file__).parent.parent
    script = f"cd {gone} && rmdir {gone} && PYTHONPATH={root} exec {sys.executable} -m electra_jax"
    done = subprocess.run(
        ["bash", "-c", f"{script} evaluate --workdir run"], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("electra-jax: the current directory cannot be used")
    assert done.stderr.count("\n") == 1
