"""Which objective learns most from the same text and the same training FLOPs?

    python benchmarks/sample_efficiency.py --store STORE --eval-data DIR --out DIR

Pretrains `tiny` with each objective for the same number of training FLOPs (the generator's
counted), and measures it at a tenth, a third and all of them: by the minimal pairs of BLiMP,
without any fine-tuning, and fine-tuned on 2,000 rows each of CoNLL-2000 (chunks) and SST-2
(sentiment), three seeds each, beside an encoder that was never pretrained. Writes table.md,
figure.png and scores.jsonl to --out. Runs resume, and what is measured is not measured again:
stop it at any time, and share the work among processes by --only.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.mixture import Mixture
from electra_jax.evaluation import evaluate_minimal_pairs
from electra_jax.finetuning.sweep import run_group
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretraining.pretrain import pretrain, resolve_vocabulary
from electra_jax.pretraining.program import flops_per_token

matplotlib.use("agg")
import matplotlib.pyplot as plt


class Run(NamedTuple):
    objective: str
    seed: int

    def __str__(self) -> str:
        return f"{self.objective}-{self.seed}"


RUNS = [Run("electra", 0), Run("mlm", 0), Run("replace_mlm", 0), Run("all_tokens_mlm", 0),
        Run("electra", 1), Run("mlm", 1)]  # fmt: skip
SAVES = 30  # checkpoints of a run, evenly spaced
POINTS = (3, 10, 30)  # of them are measured
SEEDS = 3  # of fine-tuning
TASKS = {
    "CoNLL-2000": ("finetune/tagging", ["task.train=conll:{}/conll2000/train.txt",
                                        "train.length=64"]),
    "SST-2": ("finetune/glue:sst2", ["task.train={}/glue/SST-2/train.tsv",
                                     "task.validation={}/glue/SST-2/dev.tsv", "train.length=64"]),
}  # fmt: skip
PAIRS = "blimp/pairs.jsonl"
# A pseudo-log-likelihood reads a sentence once for each of its tokens.
PAIRS_PER_PARADIGM = {"electra": 0, "mlm": 100, "replace_mlm": 100, "all_tokens_mlm": 100}


def make_config(run: Run, store: str, flops: float) -> tuple[PretrainConfig, float]:
    """The run's config, and the training FLOPs of one of its steps."""
    fields = [f"data.store={store}", f"train.seed={run.seed}", "train.time_budget="]
    vocab_size = Mixture.open(store).tokenizer.vocab_size

    def build(*more: str) -> PretrainConfig:
        config = load_config(f"pretrain/family:{run.objective}", [*fields, *more])
        return resolve_vocabulary(pretrain_config(config), vocab_size)

    config = build()
    per_step = sum(flops_per_token(config).values()) * config.train.batch_size * config.data.length
    every = max(1, round(flops / SAVES / per_step))
    return build(
        f"train.steps={SAVES * every}", f"eval.every_steps={every}",
        f"checkpoint.every_steps={every}", f"checkpoint.keep={SAVES + 2}",
    ), per_step  # fmt: skip


def measure(workdir: Path, run: Run, step: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """By name of the yardstick, a score in percent for each seed of fine-tuning."""
    fresh = str(step == 0).lower()
    scores = {}
    if step:
        count = PAIRS_PER_PARADIGM[run.objective]
        pairs = evaluate_minimal_pairs(workdir, str(args.eval_data / PAIRS), str(step), count)
        scores["BLiMP"] = [100 * pairs["minimal_pairs"]]
    for name, (config, fields) in TASKS.items():
        init = [f"init.from={workdir}", f"init.fresh={fresh}", "task.train_rows=2000"]
        if step:
            init.append(f"init.checkpoint={step}")
        fields = [field.format(args.eval_data) for field in fields]
        folder = args.out / "finetuned" / f"{run}-{step}" / name
        results = run_group(config, [*init, *fields], folder, SEEDS)
        scores[name] = [100 * result["metrics"][result["metric"]] for result in results]
    return scores


def measurements(run: Run, args: argparse.Namespace, done: set[tuple]) -> Iterator[dict[str, Any]]:
    """Pretrains, and yields what is measured at each point that is not done."""
    config, per_step = make_config(run, args.store, args.flops)
    workdir = args.out / str(run)
    pretrain(config, workdir)
    points = [point * config.train.steps // SAVES for point in POINTS]
    for step in [0, *points] if run == RUNS[0] else points:
        if (*run, step) not in done:
            yield {**run._asdict(), "step": step, "flops": step * per_step,
                   "scores": measure(workdir, run, step, args)}  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: scores in percent, with the standard deviation over seeds of fine-tuning."""
    names = ["BLiMP", *TASKS]
    rows = [["objective", "seed", "TFLOP", "steps", *names], ["---"] * (4 + len(names))]
    for line in lines:
        cells = [cell(line["scores"].get(name, [])) for name in names]
        name = line["objective"] if line["step"] else "no pretraining"
        rows.append([name, str(line["seed"]), f"{line['flops'] / 1e12:.0f}",
                     f"{line['step']:,}", *cells])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}" if values else ""


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Scores against training FLOPs, a panel for each yardstick."""
    names = ["BLiMP", *TASKS]
    figure, panels = plt.subplots(1, len(names), figsize=(4 * len(names), 4), layout="constrained")
    colours = {run.objective: f"C{index}" for index, run in enumerate(RUNS[:4])}
    for axes, name in zip(panels, names, strict=True):
        for run in RUNS:
            points = [x for x in lines if (x["objective"], x["seed"]) == run and x["step"]]
            if points:
                axes.errorbar(
                    [x["flops"] / 1e12 for x in points],
                    [statistics.mean(x["scores"][name]) for x in points],
                    [statistics.pstdev(x["scores"][name]) for x in points],
                    fmt="--s" if run.seed else "-o", color=colours[run.objective],
                    markersize=4, label=str(run),
                )  # fmt: skip
        for line in lines:
            if not line["step"] and name in line["scores"]:
                axes.axhline(statistics.mean(line["scores"][name]), color="grey", linestyle=":")
        axes.set(title=name, xlabel="training TFLOP", xscale="log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy or F1, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, dpi=110)


def read(file: Path) -> list[dict[str, Any]]:
    """What is measured so far, in the order of `RUNS`."""
    lines = [json.loads(line) for line in file.open()] if file.exists() else []
    return sorted(lines, key=lambda x: (RUNS.index((x["objective"], x["seed"])), x["step"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="token store (see `electra-jax prepare`)")
    parser.add_argument("--eval-data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flops", type=float, default=3e14, help="of each run, default 3e14")
    names = [str(run) for run in RUNS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    enable_compilation_cache()
    file = args.out / "scores.jsonl"
    for run in RUNS:
        if str(run) in args.only:
            done = {(line["objective"], line["seed"], line["step"]) for line in read(file)}
            for line in measurements(run, args, done):
                with file.open("a") as output:
                    output.write(json.dumps(line) + "\n")
                print(table([line]), flush=True)
    lines = read(file)
    (args.out / "table.md").write_text(table(lines))
    plot(lines, args.out / "figure.png")
    print(table(lines))


if __name__ == "__main__":
    main()
