"""Faults of the world around a command, each command and each fault once.

Full and read-only disks, names that are in the way, two of a command at once, streams that are
closed or full, a clock that jumps, and what somebody planted where the command writes.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
from forked import Ended
from kills import check_end, check_result, remove
from scene import Command, Scene, overrides

STREAMED = ("tokenizer", "prepare", "embed", "evaluate", "report")
JUMPS = {"back 30 days": -30 * 86400, "ahead a year": 365 * 86400}
Row = tuple[str, str]


def tables(scene: Scene, only: str = "") -> Iterator[Row]:
    """What each fault was, and what went wrong; "" if nothing did."""
    expected = {}
    for command in scene.commands():
        if only and command.name not in only.split():
            continue
        out = scene.folder / f"straight-{command.name}"
        ended = forked.run(command.arguments(out))
        if ended.status:
            raise RuntimeError(f"{command.name} ended with {ended.status}: {ended.output}")
        expected[command.name] = command.result(out)
        for table in (disks, names, at_once, streams, clock, planted):
            yield from table(scene, command, out, expected[command.name])
    yield from pickles(scene)


def one_line(ended: Ended) -> str:
    """What is wrong with how a command ended that could not do its work."""
    if wrong := check_end(ended):
        return wrong
    lines = [line for line in ended.output.splitlines() if line.startswith("electra-jax: ")]
    if ended.status not in (1, 2) or len(lines) != 1:
        return f"status {ended.status}: {ended.output[-800:]}"
    return ""


def done(ended: Ended, command: Command, out: Path, expected: str) -> str:
    """What is wrong with how a command ended that should have done its work."""
    if wrong := check_end(ended):
        return wrong
    if ended.status:
        return f"status {ended.status}: {ended.output[-800:]}"
    found = command.result(out)
    return (
        "" if found == expected else f"another result: {found[-800:]}\nexpected: {expected[-800:]}"
    )


def disks(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """A disk that is full, and then is not; and one that cannot be written to."""
    folder = scene.folder / "disk"
    size = sum(path.stat().st_size for path in [straight, *straight.rglob("*")] if path.is_file())
    folder.mkdir(exist_ok=True)
    for share in (0.1, 0.5, 0.9):
        name = f"{command.name}: a disk of {share:.0%} of what it takes"
        with mounted(folder, f"size={max(4096, int(size * share))}") as is_mounted:
            if not is_mounted:
                yield f"{name} (skipped: mounting takes root)", ""
                continue
            out = folder / f"full-{command.name}"
            with contextlib.suppress(OSError):  # of what `copy` would put there first
                first = forked.run(command.arguments(out))
                # What stands beside the result may be left out, and said.
                wrong = check_end(first) or (first.status and one_line(first)) or ""
                yield name, wrong
                _mount("-o", "remount,size=256m", str(folder))
                again = forked.run(command.arguments(out))
                yield f"{name}, and then enough", done(again, command, out, expected)
    with mounted(folder, "size=64m") as is_mounted:
        name = f"{command.name}: a disk that is read only"
        if not is_mounted:
            yield f"{name} (skipped: mounting takes root)", ""
            return
        out = folder / f"read-only-{command.name}"
        arguments = command.arguments(out)  # which may put something there
        _mount("-o", "remount,ro", str(folder))
        ended = forked.run(arguments)
        # What `evaluate` prints is its result, and what it cannot write is warned of.
        prints = command.name == "evaluate" and not ended.status
        yield name, check_end(ended) if prints else one_line(ended)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """A file system in memory on a folder, if this process may mount one."""
    if not _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder)):
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _mount(*arguments: str) -> bool:
    with contextlib.suppress(OSError):
        return not subprocess.run(
            ["mount", *arguments], capture_output=True, check=False
        ).returncode
    return False


def names(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """Places where nothing can be written, and names that are unusual."""
    if "copy" in command.arguments.__code__.co_names:  # it writes into what it reads
        return
    folder = scene.folder / f"names-{command.name}"
    folder.mkdir()
    (folder / "file").write_text("a file")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/at/all")
    bad = {
        "below a file": folder / "file" / "out",
        "below a loop of links": folder / "loop" / "out",
        "a loop of links": folder / "loop",
        "a name that is too long": folder / ("n" * 300),
        "a system's folder": Path("/proc/out"),
    }
    for name, out in bad.items():
        yield f"{command.name}: {name}", one_line(forked.run(command.arguments(out)))
    for name in ("$HOME", "50%", "a b", "new\nline", os.fsdecode(b"\xff\xfe"), "-o", "ø漢字"):
        out = folder / name
        ended = forked.run(command.arguments(out))
        wrong = (ended.status and one_line(ended)) or (
            "" if ended.status else done(ended, command, out, expected.replace(straight.name, ""))
        )
        yield f"{command.name}: named {name!r}", wrong
    shutil.rmtree(folder, ignore_errors=True)


def at_once(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """Two of a command into the same place: one does it, and the other ends with one line."""
    out = scene.folder / f"twice-{command.name}"
    arguments = command.arguments(out)
    processes = [forked.start(arguments), forked.start(arguments)]
    ended = [process.wait() for process in processes]
    wrong = "".join(map(check_end, ended))
    statuses = sorted(e.status for e in ended)
    if not wrong and statuses not in ([0, 0], [0, 2]):
        wrong = f"statuses {statuses}: {' '.join(e.output[-500:] for e in ended)}"
    yield f"{command.name}: two at once", wrong or check_result(command, out, expected)


def streams(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """Standard streams that are closed, or go to a disk that is full."""
    if command.name not in STREAMED:
        return

    def close(*numbers: int) -> Callable[[], None]:
        def before() -> None:
            # As a process that was started so: Python's own objects are None then.
            import sys

            for number in numbers:
                os.close(number)
                setattr(sys, ("stdin", "stdout", "stderr")[number], None)

        return before

    def fill(number: int) -> Callable[[], None]:
        def before() -> None:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, number)

        return before

    faults = {
        "stdin closed": close(0), "stdout closed": close(1), "stderr closed": close(2),
        "all closed": close(0, 1, 2), "stdout full": fill(1), "stderr full": fill(2),
    }  # fmt: skip
    for name, fault in faults.items():
        out = scene.folder / f"streams-{command.name}"
        ended = forked.run(command.arguments(out), before=fault)
        wrong = check_end(ended)
        if not wrong and ended.status and name != "stdout full":
            wrong = f"status {ended.status}: {ended.output[-500:]}"
        yield f"{command.name}: {name}", wrong
        remove(out)


def clock(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """A clock that jumps while the command runs."""
    for name, jump in JUMPS.items():
        out = scene.folder / f"clock-{command.name}-{abs(jump)}"

        def before(jump: float = jump) -> None:
            real, calls = time.time, iter(range(1 << 62))
            time.time = lambda: real() + (jump if next(calls) > 20 else 0)

        ended = forked.run(command.arguments(out), before=before)
        yield f"{command.name}: the clock goes {name}", done(ended, command, out, expected)


def planted(scene: Scene, command: Command, straight: Path, expected: str) -> Iterator[Row]:
    """What somebody else left where the command writes: nothing of theirs is lost."""
    precious = scene.folder / f"precious-{command.name}"
    precious.mkdir()
    (precious / "diary.txt").write_text("mine")
    out = scene.folder / f"planted-{command.name}"
    for hidden in (f".{out.name}.partial", f".{out.name}.lock", f"{out.name}.partial"):
        link = out.with_name(hidden)
        link.symlink_to(precious)
        ended = forked.run(command.arguments(out))
        wrong = (one_line(ended) if ended.status else done(ended, command, out, expected)) or (
            "" if (precious / "diary.txt").exists() else "the diary is gone"
        )
        yield f"{command.name}: a link at {hidden[1:].partition('.')[2]}", wrong
        link.unlink(missing_ok=True)
        remove(out)
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir()
    (folder / "diary.txt").write_text("mine")
    ended = forked.run(command.arguments(out))
    wrong = (one_line(ended) if ended.status else done(ended, command, out, expected)) or (
        "" if (folder / "diary.txt").exists() else "the diary is gone"
    )
    yield f"{command.name}: somebody's folder at partial", wrong
    shutil.rmtree(folder, ignore_errors=True)


class Planted:
    """An object that, unpickled, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def pickles(scene: Scene) -> Iterator[Row]:
    """Code in pickles that stand where arrays are expected."""
    import numpy as np

    mark = scene.folder / "ran"
    store = scene.folder / "pickled-store"
    shutil.copytree(scene.store, store)
    np.save(store / "train" / "tokens.npy", np.array([Planted(mark)], object), allow_pickle=True)
    out = scene.folder / "pickled-run"
    arguments = ["pretrain", "--config", "pretrain/tiny", "--workdir", str(out),
                 *overrides([f"data.store={store}"])]  # fmt: skip
    wrong = one_line(forked.run(arguments)) or ("the code ran" if mark.exists() else "")
    yield "a store of pickled objects", wrong
