"""Small text, models and runs, and the commands that make and use them.

Each command writes one thing, of which `result` gives what must be equal however often the
command was stopped on the way.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import forked

CLOCK = ("seconds", "train/tokens_per_second", "train/mfu")
RUN = [
    "model.layers=2", "model.hidden=16", "model.heads=2", "model.intermediate=32",
    "model.embedding=16", "data.length=32", "train.batch_size=16", "eval.batch_size=16",
    "train.time_budget=", "train.steps=24", "train.log_every=4", "eval.every_steps=12",
    "checkpoint.every_steps=6", "optimizer.warmup_steps=5",
]  # fmt: skip
TUNING = [
    "train.length=16", "train.batch_size=16", "train.eval_batch_size=16", "train.epochs=2",
    "checkpoint.every_steps=2", "optimizer.learning_rate=3e-3",
]  # fmt: skip
GLUE = ["CoLA", "SST-2"]


class Command(NamedTuple):
    """A command of a scene.

    Attributes:
      name: what tables call it.
      arguments: output folder → arguments.
      result: output folder → a text that is equal if what was written is.
      whole: whether the output has its name only once it is whole; runs grow under it.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], str]
    whole: bool = False


class Scene:
    """Inputs in a folder, and the commands on them."""

    def __init__(self, folder: Path) -> None:
        """Makes the inputs, by the commands themselves where there is one."""
        self.folder = folder
        self.text = folder / "text.txt"
        self.pairs = folder / "pairs.jsonl"
        self._write_text()
        self._write_labelled()
        self.tokenizer = self._make("tokenizer")
        self.store = self._make("prepare")
        self.run = self._make("pretrain")
        self.model = self._make("export")
        self.tuned = self._make("finetune")

    def _make(self, name: str) -> Path:
        output = self.folder / name
        ended = forked.run(self.command(name).arguments(output))
        if ended.status:
            raise RuntimeError(f"{name} ended with {ended.status}: {ended.output}")
        return output

    def _write_text(self) -> None:
        words = [
            "the",
            "a",
            "cat",
            "dog",
            "bird",
            "fish",
            "cow",
            "eats",
            "sees",
            "likes",
            "hears",
            "big",
            "small",
            "red",
            "old",
        ]
        syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
        rare = [a + b + c for a, b, c in itertools.product(syllables[::4], repeat=3)]
        lines = []
        for document in range(400):
            picks = [words[(document * 7 + i * i * 3 + i) % len(words)] for i in range(30)]
            picks += [rare[(document * 37 + i * 101) % len(rare)] for i in range(10)]
            lines.append(" ".join(picks) + ".")
        self.text.write_text("\n\n".join(lines) + "\n")

    def _write_labelled(self) -> None:
        for name, count in (("train", 48), ("dev", 16)):
            rows = [
                f"the {'good' if i % 3 else 'bad'} cat sees dog {i % 7},{'yes' if i % 3 else 'no'}"
                for i in range(count)
            ]
            (self.folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        lines = [f"the cat {i} sees the {'dog' if i % 2 else 'bird'}" for i in range(20)]
        (self.folder / "new.txt").write_text("\n".join(lines) + "\n")
        for name in GLUE:
            (self.folder / "glue" / name).mkdir(parents=True)
            for part, count in (("train", 16), ("dev", 16)):
                if name == "CoLA":
                    rows = [f"gj\t{i % 2}\t\tthe cat {i % 5}" for i in range(count)]
                else:
                    rows = ["sentence\tlabel", *(f"the cat {i % 5}\t{i % 2}" for i in range(count))]
                (self.folder / "glue" / name / f"{part}.tsv").write_text("\n".join(rows) + "\n")
        pairs = [
            {"sentence_good": "the cat sees a dog", "sentence_bad": f"dog the {word} a cat",
             "UID": "order", "linguistics_term": "syntax"}
            for word in ("sees", "hears", "likes")
        ]  # fmt: skip
        self.pairs.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))

    def command(self, name: str) -> Command:
        return next(command for command in self.commands() if command.name == name)

    def commands(self) -> list[Command]:
        """Every command that writes something, in the order of use."""
        here = self.folder
        tuning = [f"task.train={here}/train.csv", f"task.validation={here}/dev.csv", *TUNING]
        return [
            Command("tokenizer", lambda out: [
                "tokenizer", "--input", f"text:{self.text}", "--vocab-size", "120",
                "--output", str(out)], files, True),
            Command("unigram", lambda out: [
                "tokenizer", "--input", f"text:{self.text}", "--vocab-size", "450", "--kind",
                "unigram", "--output", str(out)], files, True),
            Command("prepare", lambda out: [
                "prepare", "--input", f"text:{self.text}", "--tokenizer", str(self.tokenizer),
                "--output", str(out), "--workers", "2", "--validation-share", "0.1"], files, True),
            Command("pretrain", lambda out: [
                "pretrain", "--config", "pretrain/tiny", "--workdir", str(out),
                *overrides([*RUN, f"data.store={self.store}"])], run_result),
            Command("evaluate", lambda out: [
                "evaluate", "--workdir", str(self.copy(self.run, out)), "--minimal-pairs",
                str(self.pairs)], lambda out: files(out, "minimal_pairs.json")),
            Command("export", lambda out: [
                "export", "--model", str(self.run), "--to", str(out)], files, True),
            Command("import", lambda out: [
                "import", "--from", f"{self.model}/discriminator", "--to", str(out)], run_result,
                True),
            Command("finetune", lambda out: [
                "finetune", "--config", "finetune/classification", "--workdir", str(out),
                *overrides([*tuning, f"init.from={self.run}"])], tuned_result),
            Command("sweep", lambda out: [
                "finetune", "--config", "finetune/classification", "--workdir", str(out),
                "--sweep", "optimizer.learning_rate=1e-3,3e-3",
                *overrides([*tuning, f"init.from={self.run}"])], sweep_result),
            Command("glue", lambda out: [
                "glue", "--model", str(self.run), "--data", str(here / "glue"), "--workdir",
                str(out), *overrides(["train.length=16", "train.epochs=1",
                "train.batch_size=8"])], sweep_result),
            Command("embed", lambda out: [
                "embed", "--model", str(self.run), "--input", str(here / "new.txt"),
                "--output", str(out)], file_digest, True),
            Command("predict", lambda out: [
                "predict", "--model", str(self.tuned), "--input", str(here / "new.txt"),
                "--output", str(out)], file_digest, True),
            Command("report", lambda out: [
                "report", "--workdir", str(self.copy(self.run, out))],
                lambda out: (out / "report/index.html").read_text().replace(out.name, "")),
        ]  # fmt: skip

    @staticmethod
    def copy(source: Path, out: Path) -> Path:
        """A folder of its own for a command that writes into what it reads."""
        if not out.exists():
            shutil.copytree(source, out)
        return out


def overrides(fields: list[str]) -> list[str]:
    return [f"--config.{field}" for field in fields]


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def files(folder: Path, pattern: str = "**/*") -> str:
    """Names and digests of files; row tables are caches, and locks say who wrote last."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    kept = [path for path in found if not path.name.startswith((".", "rows-"))]
    return "\n".join(f"{path.relative_to(folder)} {file_digest(path)}" for path in kept)


def metrics(workdir: Path) -> str:
    """The lines of a run's log without what depends on the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return "\n".join(
        json.dumps({name: value for name, value in line.items() if name not in CLOCK})
        for line in lines
    )


def arrays(workdir: Path) -> str:
    """A digest of all parameters of a run's latest checkpoint, read in a process of its own."""

    def read() -> None:
        import jax
        import numpy as np

        from electra_jax.inference.finetuned import load

        model = load(workdir, "last")
        params = getattr(model, "params", None)
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        print("step", model.step, digest.hexdigest()[:16])

    ended = forked.run_function(read)
    return ended.output.strip().splitlines()[-1]


def run_result(workdir: Path) -> str:
    logged = metrics(workdir) if (workdir / "metrics.jsonl").exists() else ""
    return "\n".join([logged, arrays(workdir), files(workdir, "tokenizer/*")])


def tuned_result(workdir: Path) -> str:
    return "\n".join(
        [
            metrics(workdir), arrays(workdir), files(workdir, "predictions/*"),
            files(workdir, "results.json"),
        ]
    )  # fmt: skip


def sweep_result(workdir: Path) -> str:
    return "\n".join([files(workdir, "**/results.json"), files(workdir, "**/results.md")])
