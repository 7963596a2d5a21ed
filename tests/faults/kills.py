"""Every command ended at random moments: rerun, it gives what it would have given.

What was promised of a kill: nothing half made bears its final name, and of a signal besides:
the command and its children end soon, with the status that says so.
"""

import difflib
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import forked
from forked import GRACE, Ended, Kill
from scene import Command, Scene

SIGNALS = {signal.SIGKILL: 0.6, signal.SIGTERM: 0.2, signal.SIGINT: 0.2}
# 75: saved, to be rerun. 130 and 143: interrupted, as shells count.
STATUSES = {
    signal.SIGKILL: {0, -signal.SIGKILL},
    signal.SIGTERM: {0, 75, 143, -signal.SIGTERM},
    signal.SIGINT: {0, 130, -signal.SIGINT},
}
USED = 2  # the status of a command whose output is there already


def kills(scene: Scene, count: int, seed: int, only: str = "") -> Iterator[tuple[str, str]]:
    """What each of `count` kills was, and what went wrong; "" if nothing did."""
    names = only.split()
    commands = [command for command in scene.commands() if not names or command.name in names]
    straight = {command.name: _straight(scene, command) for command in commands}
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        command = commands[index % len(commands)]
        seconds, expected = straight[command.name]
        kill = Kill(rng.choices(list(SIGNALS), list(SIGNALS.values()))[0], rng.random() * seconds)
        out = scene.folder / f"killed-{command.name}-{index}"
        name = f"{command.name} {kill.signal.name} after {kill.seconds:.3f} s ({index})"
        yield name, _kill(command, out, kill, expected)
        remove(out)


def _straight(scene: Scene, command: Command) -> tuple[float, str]:
    """Seconds and result of a command that nothing stops; the second time all is compiled."""
    for index in range(2):
        out = scene.folder / f"straight-{command.name}-{index}"
        ended = forked.run(command.arguments(out))
        if ended.status:
            raise RuntimeError(f"{command.name} ended with {ended.status}: {ended.output}")
        result = command.result(out)
        remove(out)
    return ended.seconds, result


def _kill(command: Command, out: Path, kill: Kill, expected: str) -> str:
    ended = forked.run(command.arguments(out), kill=kill)
    if wrong := check_signal(ended, kill.signal):
        return wrong
    is_there = out.exists()
    if is_there and command.whole and command.result(out) != expected:
        return "half of the output has its final name"
    again = forked.run(command.arguments(out))
    if wrong := check_end(again):
        return f"rerun: {wrong}"
    if again.status and not (again.status == USED and is_there and command.whole):
        return f"rerun: status {again.status}: {again.output[-500:]}"
    return check_result(command, out, expected)


def check_result(command: Command, out: Path, expected: str) -> str:
    """What is wrong with what a command wrote; "" if nothing is."""
    return check_equal(command.result(out), expected)


def check_equal(found: str, expected: str) -> str:
    """What differs between two results; "" if nothing does."""
    if found == expected:
        return ""
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), n=0, lineterm="")
    return "another result: " + "\n".join(lines)[:600]


def check_signal(ended: Ended, number: signal.Signals) -> str:
    """What is wrong with how a command ended on a signal; "" if nothing is."""
    if number == signal.SIGKILL:
        # Workers that Python was starting for it say that there is nobody any more.
        ended = ended._replace(output="")
    if wrong := check_end(ended):
        return wrong
    if ended.status not in STATUSES[number]:
        return f"status {ended.status}: {ended.output[-500:]}"
    if ended.after_signal > GRACE:
        return f"ended {ended.after_signal:.1f} s after the signal"
    return ""


def check_end(ended: Ended) -> str:
    """What no command may do, however it ends."""
    if ended.hung:
        return f"still there after {ended.seconds:.0f} s: {ended.output[-500:]}"
    if ended.orphans:
        return f"left {len(ended.orphans)} processes: {ended.output[-500:]}"
    if "Traceback" in ended.output:
        return f"a traceback: {ended.output[-3000:]}"
    return ""


def remove(out: Path) -> None:
    """Removes an output and what a command may have left beside it."""
    for path in [out, *out.parent.glob(f".{out.name}*"), *out.parent.glob(f"{out.name}*")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
