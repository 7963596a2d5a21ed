"""A signal ends a command, its children and its threads within seconds, whatever they are at."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import members
from tiny_run import TINY, make_store

from electra_jax.data.token_store import prepare
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.system.ending import ending_at_once, held_back

ROOT = Path(__file__).parent.parent.parent
SECONDS = 15.0  # 5 are promised; machines that run tests are busy
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SIGNALS = pytest.mark.parametrize("number", STATUSES, ids=lambda number: number.name)

# The main thread is in native code, where Python runs no handler of signals.
NATIVE = """
import hashlib, sys
from electra_jax import cli
from electra_jax.system.atomic_files import atomic_folder

def run(args):
    with atomic_folder(args.workdir):
        print("begun", file=sys.stderr, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

cli.COMMANDS["report"] = run
sys.exit(cli.main())
"""


# The signal comes while the garbage collector calls a function, where no exception can be raised.
COLLECTED = """
import gc, os, sys, time
from electra_jax import cli
from electra_jax.system.ending import ends_itself

def signalled(phase, info):
    gc.callbacks.remove(signalled)
    os.kill(os.getpid(), {number})
    for _ in range(1000):
        pass

def run(args):
    with ends_itself():
        gc.callbacks.append(signalled)
        gc.collect()
        time.sleep({seconds})
        print("slept", file=sys.stderr)

cli.COMMANDS["report"] = run
sys.exit(cli.main())
"""


@contextlib.contextmanager
def started(*arguments, program=("-m", "electra_jax"), **environment):
    """A command in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)], cwd=ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(true, process=None):
    deadline = time.monotonic() + 120
    while not true():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_end(process, number, status, said):
    """Signals a command, and checks how it ends."""
    process.send_signal(number)
    start = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - start < SECONDS
    assert process.returncode == status, err
    assert said in out + err and "Traceback" not in out + err
    wait_until(lambda: not members(process.pid))


@SIGNALS
def test_native_code_is_interrupted_and_leaves_nothing(number, tmp_path):
    with started("report", "--workdir", tmp_path / "out", program=("-c", NATIVE)) as process:
        wait_until(lambda: process.stderr.readline() == "begun\n", process)
        said = "electra-jax: interrupted" if number == signal.SIGINT else "electra-jax: terminated"
        check_end(process, number, STATUSES[number], said)
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """12 MB of words that no two documents share."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(50_000)]
    file.write_text("\n\n".join(" ".join(rng.choices(words, k=60)) for _ in range(30_000)))
    return file


@pytest.mark.slow
@SIGNALS
def test_a_trainer_of_tokenizers_is_interrupted(number, text, tmp_path):
    """SentencePiece works for long on this, and makes errors of its own of Python's."""
    output = tmp_path / "tokenizer"
    flags = ["--input", f"text:{text}", "--vocab-size", "8000", "--kind", "unigram"]
    with started("tokenizer", *flags, "--output", output) as process:
        wait_until(lambda: any(tmp_path.iterdir()), process)
        time.sleep(0.3)
        check_end(process, number, STATUSES[number], "electra-jax: ")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [*STATUSES, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_of_prepare_end_and_the_same_command_ends_the_work(number, text, tmp_path):
    tokenizer = train_tokenizer(["ab cd " * 100], "wordpiece", 100)
    tokenizer.save(tmp_path / "tokenizer")
    store = tmp_path / "store"
    flags = ["--input", f"text:{text}", "--tokenizer", tmp_path / "tokenizer", "--workers", "2"]
    with started("prepare", *flags, "--output", store) as process:
        tokens = tmp_path / ".store.partial" / "train" / "tokens.npy"
        wait_until(lambda: tokens.exists() and tokens.stat().st_size > 10_000, process)
        assert len(members(process.pid)) > 2
        if number == signal.SIGKILL:
            process.send_signal(number)
            wait_until(lambda: not members(process.pid))
        else:
            check_end(process, number, STATUSES[number], "electra-jax: ")
            assert not tokens.exists()
    prepare(["ab cd"] * 50, tokenizer, store, workers=1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "tokenizer"]


@pytest.mark.slow
def test_a_worker_that_is_killed_for_want_of_memory_is_told(text, tmp_path):
    tokenizer = train_tokenizer(["ab cd " * 100], "wordpiece", 100)
    tokenizer.save(tmp_path / "tokenizer")
    flags = ["--input", f"text:{text}", "--tokenizer", tmp_path / "tokenizer", "--workers", "2"]
    with started("prepare", *flags, "--output", tmp_path / "store") as process:
        tokens = tmp_path / ".store.partial" / "train" / "tokens.npy"
        wait_until(lambda: tokens.exists() and tokens.stat().st_size > 10_000, process)
        os.kill(max(members(process.pid)), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "electra-jax: a worker died, for want of memory perhaps" in err.splitlines()[-1]
        assert "Traceback" not in err
        wait_until(lambda: not members(process.pid))
    assert os.listdir(tmp_path) == ["tokenizer"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


# A step takes for ever to be compiled.
COMPILING = """
import hashlib, sys
from electra_jax import cli
from electra_jax.training import loop

def compile_(*args):
    print("begun", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

real = loop.Loop.run

def run(self, *args):
    self.train_step = compile_
    return real(self, *args)

loop.Loop.run = run
sys.exit(cli.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_run_that_is_compiling_is_stopped(number, status, store, tmp_path):
    """There is nothing to save yet, and nobody is to wait for the first step."""
    flags = [f"--config.{field}" for field in [*TINY, f"data.store={store}"]]
    flags += ["--config", "pretrain/tiny", "--workdir", tmp_path / "run"]
    with started("pretrain", *flags, program=("-c", COMPILING)) as process:
        wait_until(lambda: "begun" in process.stderr.readline(), process)
        time.sleep(0.3)
        check_end(process, number, status, "electra-jax: ")


@pytest.mark.slow
@SIGNALS
def test_a_stream_that_brings_nothing_is_not_waited_for(number, encoder_dir, tmp_path):
    """And Python does not complain of the thread that reads it."""
    code = (
        "import sys\nfrom electra_jax import cli\nfrom electra_jax.inference import files\n"
        "def run(args):\n print('begun', file=sys.stderr, flush=True)\n"
        " list(files.arriving(files.read_input('-', 'lines')))\n"
        "cli.COMMANDS['report'] = run\nsys.exit(cli.main())"
    )
    with started("report", "--workdir", "w", program=("-c", code)) as process:
        wait_until(lambda: process.stderr.readline() == "begun\n", process)
        time.sleep(0.3)
        check_end(process, number, STATUSES[number], "electra-jax: ")


@SIGNALS
def test_a_signal_that_comes_while_rubbish_is_collected_is_heeded(number, tmp_path):
    program = ("-c", COLLECTED.format(number=int(number), seconds=SECONDS))
    with started("report", "--workdir", tmp_path, program=program) as process:
        _, told = process.communicate(timeout=4 * SECONDS)
        assert process.returncode == STATUSES[number], told
        assert "slept" not in told and "Traceback" not in told


@SIGNALS
def test_a_signal_is_held_back_while_something_must_not_be_done_by_half(number):
    done = []
    with pytest.raises(KeyboardInterrupt), ending_at_once():
        with held_back():
            signal.raise_signal(number)
            done.append("the whole")
        done.append("more")
    assert done == ["the whole"]
