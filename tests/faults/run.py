"""Injects faults into real runs, and reports what did not hold.

    python tests/faults/run.py --kills 200 --corruptions 200 --readers 20000 --out summary.json

Prints each failure with its number, which `--only` and `--seed` give again; the summary is JSON.
docs/reliability.md says what is promised.
"""

import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scene import Scene

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
PARTS = ("kills", "corruptions", "tables", "readers")


def prepare_process() -> None:
    """Imports once what every command would import, and compiles into a cache."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cache = HERE.parent.parent / ".pytest_cache" / "xla-faults"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    import tensorflow  # noqa: F401

    import electra_jax.cli
    import electra_jax.evaluation
    import electra_jax.exchange
    import electra_jax.finetuning.glue
    import electra_jax.finetuning.sweep
    import electra_jax.pretraining.pretrain
    import electra_jax.report  # noqa: F401


def run_part(part: str, scenes: "Scenes", args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(fault, what went wrong or "") pairs."""
    if part == "readers":
        import fuzzing

        yield from fuzzing.fuzz_all(args.readers, args.seed, args.only)
        return
    there = scenes.get()
    if part == "kills":
        import kills

        yield from kills.kills(there, args.kills, args.seed, args.only)
    elif part == "corruptions":
        import corruption

        yield from corruption.corruptions(there, args.corruptions, args.seed, args.only)
    else:
        import tables

        yield from tables.tables(there, args.only)


class Scenes:
    """The scene of all parts, made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._scene: Scene | None = None

    def get(self) -> "Scene":
        from scene import Scene

        self._scene = self._scene or Scene(self.folder)
        return self._scene


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--corruptions", type=int, default=200)
    parser.add_argument("--readers", type=int, default=20_000, help="damaged inputs")
    parser.add_argument("--only", default="", help="the command, file or row of that name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the summary goes, too")
    args = parser.parse_args()
    prepare_process()
    summary: dict[str, dict] = {}
    # Not a TemporaryDirectory, which every fork would remove at its end.
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    scenes = Scenes(folder)
    try:
        for part in args.parts:
            start = time.monotonic()
            counts: collections.Counter[str] = collections.Counter()
            failures = []
            for name, wrong in run_part(part, scenes, args):
                counts["failed" if wrong else "skipped" if "skipped" in name else "passed"] += 1
                if wrong:
                    failures.append(name)
                    print(f"FAILED {name}: {wrong}", flush=True)
            summary[part] = {
                **counts, "seconds": round(time.monotonic() - start), "failures": failures,
            }  # fmt: skip
            print(json.dumps({part: summary[part]}), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps({"seed": args.seed, **summary}, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return int(any(part["failures"] for part in summary.values()))


if __name__ == "__main__":
    sys.exit(main())
