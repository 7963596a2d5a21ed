"""Readers on damaged files: each reads, or refuses in one line; nothing else, and soon.

    python tests/faults/fuzzing.py --count 20000    all readers, so many cases in all
    python tests/faults/fuzzing.py NAME             those whose name has NAME in it
    python tests/faults/fuzzing.py NAME --case 17   what case 17 of the reader NAME does

Each reader has a process of its own, which may not take more than `MOST_MEMORY` and is ended
after `SECONDS` of one case. Case n of a reader and a seed is the same each time.
"""

import argparse
import contextlib
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 10  # of one case
KILLED_AFTER = 3 * SECONDS  # if it does not heed the alarm
MOST_MEMORY = 1 << 30  # bytes beyond what a process had before its first case
LONGEST_MESSAGE = 2000  # characters


class Reader(NamedTuple):
    """Something that reads files.

    Attributes:
      make: writes good files into a folder.
      read: reads the folder.
      mutations: what damages which file, by its path; of a path that ends in "/*" all files in it.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    mutations: dict[str, Callable[[bytes, random.Random], bytes]]


class TooLong(BaseException):
    """No reader catches it."""


def fuzz(name: str, count: int, seed: int = 0, first: int = 0) -> Iterator[dict[str, Any]]:
    """Runs cases of one reader in processes of their own.

    Yields:
      The number of a `case` and its `outcome`: "read", "refused" or "failed", with `what` failed.
    """
    case = first
    while case < count:
        for said in _run_worker(name, case, count, seed):
            yield said
            case = said["case"] + 1


def fuzz_all(count: int, seed: int = 0, only: str = "") -> Iterator[tuple[str, str]]:
    """Runs cases of all readers, or of those whose name has `only` in it; `count` in all.

    Yields:
      The reader with the number of a case, and what failed or "".
    """
    from readers import READERS

    names = [name for name in READERS if only in name]
    each = -(-count // max(1, len(names)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(lambda name=name: [*fuzz(name, each, seed)]): name for name in names}
        for done in as_completed(running):
            for said in done.result():
                yield f"{running[done]} #{said['case']}", said.get("what", "")


def _run_worker(name: str, first: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """What a worker says of its cases, and how it ended if that was early."""
    command = [sys.executable, __file__, name, "--worker", str(first), "--count", str(count)]
    case, what = first, ""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command, "--seed", str(seed)], stdout=subprocess.PIPE, stderr=errors
        ) as worker,
    ):
        for line in _lines_of(worker):
            if line is None:
                what = f"no answer in {KILLED_AFTER} s"
                worker.kill()
                break
            said = json.loads(line)
            case = said["case"] + 1
            yield said
        if worker.wait() and not what:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 500))
            tail = errors.read().decode(errors="replace")
            what = f"the process ended with {worker.returncode}: {tail}"
    if what or case < count:
        yield {"case": case, "outcome": "failed", "what": what or "the process ended early"}


def _lines_of(worker: subprocess.Popen) -> Iterator[bytes | None]:
    """What a worker writes; None if it has not written for too long."""
    assert worker.stdout is not None
    limit = KILLED_AFTER + 120  # it has much to import first
    buffer = b""
    while True:
        if not select.select([worker.stdout], [], [], limit)[0]:
            yield None
            return
        data = os.read(worker.stdout.fileno(), 1 << 16)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        yield from lines
        limit = KILLED_AFTER


class Cases:
    """The cases of a reader, run in a folder that is made."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        from readers import READERS

        self.name, self.seed, self.folder = name, seed, folder
        self.reader = READERS[name]
        folder.mkdir(exist_ok=True)
        self.reader.make(folder)
        self.reader.read(folder)  # which writes caches, too
        self.good = {
            file.relative_to(folder): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        self.targets = [
            (path, mutate)
            for pattern, mutate in self.reader.mutations.items()
            for path in self.good
            if path.match(pattern)
        ]
        assert self.targets, name

    def run(self, case: int) -> dict[str, Any]:
        """Damages a file, reads, and restores all files."""
        rng = random.Random(f"{self.name} {self.seed} {case}")
        path, mutate = rng.choice(self.targets)
        file = self.folder / path
        if rng.random() < 0.02:
            _replace(file, rng)
        else:
            file.write_bytes(mutate(self.good[path], rng))
        try:
            outcome = {"outcome": judge(lambda: self.reader.read(self.folder))}
        except Failed as failure:
            outcome = {"outcome": "failed", "file": str(path), "what": str(failure)}
        self.restore()
        return {"case": case, **outcome}

    def restore(self) -> None:
        for file in self.folder.rglob("*"):
            if (file.is_symlink() or not file.is_dir()) and (
                file.relative_to(self.folder) not in self.good
            ):
                file.unlink()
        for path, content in self.good.items():
            file = self.folder / path
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            if file.is_symlink() or not file.is_file():
                file.unlink(missing_ok=True)
                file.write_bytes(content)
            elif file.stat().st_size != len(content) or file.read_bytes() != content:
                file.write_bytes(content)


def _replace(file: Path, rng: random.Random) -> None:
    """Something else in place of a file, or nothing."""
    file.unlink()
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.symlink_to(file.name)
    elif kind == 2:
        file.mkdir()


class Failed(Exception):
    """A reader did what none may do."""


def judge(read: Callable[[], Any]) -> str:
    """Whether what was damaged is "read" or "refused".

    Raises:
      Failed: neither, or not in time, or with too much memory.
    """
    from electra_jax.errors import ElectraError

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory is that from here on
    before = _memory()
    outcome = "read"
    try:
        with _alarm():
            read()
    except ElectraError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > LONGEST_MESSAGE:
            raise Failed(f"a message of several lines, or none: {message[:300]!r}") from error
        outcome = "refused"
    except TooLong as error:
        raise Failed(f"not done in {SECONDS} s: {_where(error)}") from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Failed(f"{type(error).__name__}: {str(error)[:200]}, {_where(error)}") from error
    if (taken := _memory() - before) > MOST_MEMORY:
        raise Failed(f"{taken >> 20} MiB were taken")
    return outcome


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "electra_jax" in f.filename] or frames
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours[-4:]))


def _memory() -> int:
    """The most memory that this process had since the count was set back, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def work(name: str, first: int, count: int, seed: int) -> None:
    """Runs cases in this process, and writes a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(name, seed, Path(folder))
        limit_memory()
        for case in range(first, count):
            sys.stdout.write(json.dumps(cases.run(case)) + "\n")
            sys.stdout.flush()


def limit_memory() -> None:
    """An allocation of twice what a case may take fails; before, the machine would."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            most = (int(line.split()[1]) << 10) + 4 * MOST_MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", metavar="NAME")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=None)
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.getLogger("electra_jax").setLevel(logging.CRITICAL)
    if args.worker is not None:
        work(args.only, args.worker, args.count, args.seed)
        return
    if args.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(Cases(args.only, args.seed, Path(folder)).run(args.case))
        return
    start, failures, cases = time.monotonic(), 0, 0
    for name, what in fuzz_all(args.count, args.seed, args.only):
        cases += 1
        if what:
            failures += 1
            print(f"{name}: {what}", flush=True)
    print(f"{cases} cases, {failures} failures, {time.monotonic() - start:.0f} s", flush=True)
    sys.exit(bool(failures))


if __name__ == "__main__":
    tests = Path(__file__).parent.parent
    sys.path[:0] = [str(tests), str(tests.parent)]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
