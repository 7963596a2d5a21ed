"""Files damaged at random: what comes of it is what would have come without, or one line.

A run that falls back to an older checkpoint ends as it would have ended; what is believed and
changes a figure is a failure, and so is a traceback.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import forked
from kills import check_end, check_equal
from scene import RUN, Scene, arrays, files, overrides, run_result


class Target(NamedTuple):
    """What is damaged, and what is done with it then.

    Attributes:
      name: what tables call it.
      source: is copied, and one of its files damaged.
      patterns: of the files.
      arguments: folder of the copy → the command that uses it.
      result: folder of the copy → what it makes, to be equal; None for what it prints.
      noticed: whether the command must end with status 2 where the damage changed the file.
    """

    name: str
    source: Path
    patterns: tuple[str, ...]
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], str] | None = None
    noticed: bool = False


def targets(scene: Scene) -> list[Target]:
    half = _half_run(scene)
    new = str(scene.folder / "new.txt")

    def predict(folder: Path) -> list[str]:
        return ["predict", "--model", str(folder), "--input", new, "--output", "-"]

    def embed(folder: Path) -> list[str]:
        return ["embed", "--model", str(folder), "--input", new, "--output", f"{folder}.npy"]

    def vectors(folder: Path) -> str:
        return files(folder.parent, f"{folder.name}.npy")

    def resume(folder: Path) -> list[str]:
        return ["pretrain", "--config", "pretrain/tiny", "--workdir", str(folder),
                *overrides([*RUN, f"data.store={scene.store}"])]  # fmt: skip

    def train(folder: Path) -> list[str]:
        fields = overrides([*RUN, "train.steps=6", f"data.store={folder}"])
        return ["pretrain", "--config", "pretrain/tiny", "--workdir", f"{folder}-run", *fields]

    return [
        Target("checkpoints of a run", half, ("checkpoints/**/*",), resume, run_result),
        # A line of the log that is damaged is lost, or not noticed: what is learnt is the same.
        Target("a run", half, ("*.json*", "tokenizer/*"), resume, arrays),
        Target("a store, verified", scene.store, ("**/*.npy", "tokenizer/*"),
               lambda folder: ["verify", str(folder)], None, True),
        Target("a store", scene.store, ("**/*",), train,
               lambda folder: run_result(Path(f"{folder}-run"))),
        Target("a fine-tuned model", scene.tuned,
               ("checkpoints/**/*", "task.json", "config.json", "tokenizer/*"), predict),
        Target("an export", scene.model / "discriminator", ("*.safetensors", "tokenizer.json",
               "vocab.txt"), embed, vectors),
    ]  # fmt: skip


def _half_run(scene: Scene) -> Path:
    """A run that was killed with two checkpoints behind it and more before it."""
    folder = scene.folder / "half"
    if folder.exists():
        return folder

    def stop_after_two() -> None:
        import os
        import signal

        from electra_jax.training.checkpoint import Checkpoints

        save = Checkpoints.save

        def killed(self: Checkpoints, step: int, *args: object) -> None:
            save(self, step, *args)  # type: ignore[arg-type]
            if step == 12:
                self.wait()
                os.kill(os.getpid(), signal.SIGKILL)

        Checkpoints.save = killed  # type: ignore[method-assign, assignment]

    arguments = scene.command("pretrain").arguments(folder)
    ended = forked.run(arguments, before=stop_after_two)
    if ended.status != -9:
        raise RuntimeError(f"the half run ended with {ended.status}: {ended.output}")
    return folder


def corruptions(scene: Scene, count: int, seed: int, only: str = "") -> Iterator[tuple[str, str]]:
    """What each of `count` corruptions was, and what went wrong; "" if nothing did."""
    found = targets(scene)
    chosen = [target for target in found if only in target.name] or found
    straight = {}
    for target in chosen:
        copy = _copy(scene, target, "whole")
        ended = forked.run(target.arguments(copy))
        if ended.status:
            raise RuntimeError(f"{target.name} ended with {ended.status}: {ended.output}")
        straight[target.name] = _outcome(target, copy, ended.output)
        _clear(copy)
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        target = chosen[index % len(chosen)]
        copy = _copy(scene, target, str(index))
        what = damage(copy, target.patterns, rng)
        name = f"{target.name}: {what} ({index})"
        yield name, _use(target, copy, straight[target.name])
        _clear(copy)


def damage(folder: Path, patterns: tuple[str, ...], rng: random.Random) -> str:
    """Damages a file of those that match, and says how."""
    found = sorted({path for p in patterns for path in folder.glob(p) if path.is_file()})
    found = [path for path in found if path.stat().st_size and not path.name.startswith(".")]
    # A large file takes more of what the world does to disks, a small one matters more.
    path = rng.choice(found) if rng.random() < 0.5 else max(
        rng.sample(found, min(len(found), 5)), key=lambda x: x.stat().st_size
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    kind = rng.choice(["bit", "bit", "bit", "cut", "zeros", "noise", "gone"])
    at = rng.randrange(len(content))
    if kind == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "zeros":
        size = min(len(content) - at, 512)
        content[at : at + size] = bytes(size)
    elif kind == "noise":
        size = min(len(content) - at, 64)
        content[at : at + size] = rng.randbytes(size)
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes(content)
    return f"{kind} at {at} of {path.relative_to(folder)}"


def _use(target: Target, copy: Path, expected: str) -> str:
    ended = forked.run(target.arguments(copy))
    if wrong := check_end(ended):
        return wrong
    if ended.status:
        lines = [line for line in ended.output.splitlines() if line.startswith("electra-jax: ")]
        if len(lines) != 1 or ended.status not in (1, 2):
            return f"status {ended.status}: {ended.output[-800:]}"
        return ""
    if target.noticed:
        return "not noticed"
    return check_equal(_outcome(target, copy, ended.output), expected)


def _outcome(target: Target, copy: Path, output: str) -> str:
    if target.result:
        return target.result(copy).replace(copy.name, "")
    return "\n".join(line for line in output.splitlines() if line.startswith("{"))


def _copy(scene: Scene, target: Target, suffix: str) -> Path:
    copy = scene.folder / f"damaged-{suffix}"
    shutil.copytree(target.source, copy)
    for cache in copy.rglob("rows-*"):  # made anew
        cache.unlink()
    return copy


def _clear(copy: Path) -> None:
    for path in copy.parent.glob(f"{copy.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
