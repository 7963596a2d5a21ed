"""Every kind of task, fine-tuned from an encoder with its pretraining, and without.

    python benchmarks/finetuning.py --model MODEL --data DIR --out DIR

Prints a Markdown table, which is also written to OUT/table.md: of each set the rows trained on,
the task's baseline, and mean and standard deviation of three seeds of both encoders. Runs that
are done are not done again; with --only several processes share the work.
"""

import argparse
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from electra_jax.finetuning.glue import SETS, data_fields, find_set_files
from electra_jax.finetuning.sweep import NOT_PRETRAINED, PRETRAINED, run_group
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.run_directory import BASELINE
from electra_jax.training.loop import NonFiniteLoss

HEAD = "| use | set | rows | metric | baseline | not pretrained | pretrained | gain / deviation |"
SEEDS = 3
GLUE_SHARES = {"MRPC": 0.5, "STS-B": 3.0}  # of --train-rows; both are read in both orders


class Use(NamedTuple):
    """A set, the use it stands for, its config, and overrides: its files, and how long."""

    name: str
    use: str
    config: str
    fields: tuple[str, ...]
    share: float = 1.0  # of --train-rows: less where rows are long, more where little is not enough


def uses(data: Path) -> list[Use]:
    """All sets, by use; nine of GLUE's first."""

    def files(train: str, validation: str = "") -> list[str]:
        named = {"train": train, "validation": validation}
        return [f"task.{part}={path}" for part, path in named.items() if path]

    found = []
    for one in SETS:
        paths = find_set_files(one, [str(data / "glue"), str(data / "glue_sampled")])
        if paths:
            fields = (*data_fields(one, paths), "train.length=96", "train.epochs=3")
            config, share = f"finetune/glue:{one.variant}", GLUE_SHARES.get(one.folder, 1.0)
            found.append(Use(one.folder, "one text or two", config, fields, share))
    return found + [
        Use(name, use, f"finetune/{config}", (*fields,), *share)
        for name, use, config, fields, *share in (
            ("SQuAD, 10 articles of v2", "questions", "question_answering",
             [*files(f"{data}/squad/train-v2.0.first10articles.json"), "train.length=256"], 0.5),
            ("SQuAD, paragraphs of v1.1", "questions", "question_answering",
             [*files(f"{data}/squad/train-v1.1.random_paragraphs.json",
                     f"{data}/squad/dev-v1.1.only13articles.json"), "train.length=256",
              "train.evaluations=0.5"], 0.5),
            ("QAMR", "questions", "question_answering",
             [*files(f"{data}/qamr/dev.squad.json"), "train.length=96"], 4.0),
            ("WNUT-17", "words", "tagging",
             [*files(f"{data}/wnut17/train.conll", f"{data}/wnut17/dev.conll"),
              "train.length=128", "train.epochs=5"]),
            ("CoNLL-2000", "words", "tagging",
             [*files(f"conll:{data}/conll2000/train.txt"), "train.length=128"]),
            ("SNIPS", "assistants", "intent_slots",
             [*files(f"{data}/snips/train.jsonl", f"{data}/snips/dev.jsonl"), "train.epochs=3",
              "train.length=64"]),
            ("CLINC150", "assistants", "classification",
             [*files(f"{data}/clinc150/train.jsonl", f"{data}/clinc150/dev.jsonl"),
              "task.out_of_scope=oos", "train.epochs=5", "train.length=48"]),
            ("MuTual", "assistants", "choice",
             [*files(f"{data}/mutual/train.jsonl", f"{data}/mutual/dev.jsonl"),
              "task.text=article", "task.label=answers", "train.epochs=1"], 0.5),
            ("Cranfield, by vectors", "search", "retrieval",
             [*files(f"{data}/squad_sentences/train.jsonl", f"beir:{data}/cranfield"),
              "train.length=128"]),
            ("Cranfield, BM25's finds in order", "search", "retrieval:rerank",
             [*files(f"{data}/squad_sentences/train.jsonl", f"beir:{data}/cranfield"),
              "task.candidates=20", "train.length=256", "train.epochs=1"], 0.5),
            ("SciTLDR, sentences", "summaries", "summarization",
             [*files(f"{data}/scitldr/train.jsonl", f"{data}/scitldr/dev.jsonl"),
              "task.label=source_labels", "train.epochs=3"], 0.5),
            ("SciTLDR, written", "summaries", "summarization:abstractive",
             [*files(f"{data}/scitldr/train.jsonl", f"{data}/scitldr/dev.jsonl"),
              "train.epochs=5", "train.evaluations=0.2"], 0.5),
        )
    ]  # fmt: skip


def measure(use: Use, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """By the kind of encoder, the results of each seed."""
    rows = round(use.share * args.train_rows)
    common = [f"init.from={args.model}", f"task.train_rows={rows}"]
    return {
        kind: run_group(
            use.config,
            [*common, *use.fields, f"init.fresh={fresh}", *args.override],
            args.out / use.name.replace(" ", "_") / kind,
            SEEDS,
        )
        for kind, fresh in ((PRETRAINED, "false"), (NOT_PRETRAINED, "true"))
    }


def line(use: Use, results: dict[str, list[dict[str, Any]]]) -> str:
    """A row of the table: means and standard deviations, and the gain in units of them."""
    first = results[PRETRAINED][0]
    metric = first["metric"]
    scores = {
        kind: [100 * run["metrics"][metric] for run in runs] for kind, runs in results.items()
    }
    mean = {kind: statistics.mean(values) for kind, values in scores.items()}
    spread = {kind: statistics.stdev(values) for kind, values in scores.items()}
    baseline = 100 * first[BASELINE][metric]
    rival = max(mean[NOT_PRETRAINED], baseline)
    deviation = max(*spread.values(), 0.05)  # no less than what the table shows
    kinds = (NOT_PRETRAINED, PRETRAINED)
    return (
        f"| {use.use} | {use.name} | {first['rows']['train']:,} | {metric} | {baseline:.1f} | "
        + " | ".join(f"{mean[kind]:.1f} ± {spread[kind]:.1f}" for kind in kinds)
        + f" | {(mean[PRETRAINED] - rival) / deviation:+.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="run directory, or a Hugging Face one")
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="SET", help="these sets, by name")
    parser.add_argument("--train-rows", type=int, default=10_000, help="of each set, at most")
    parser.add_argument(
        "--override", nargs="+", default=[], metavar="SECTION.FIELD=VALUE", help="of all runs"
    )
    args = parser.parse_args()
    enable_compilation_cache()
    chosen = uses(args.data)
    if args.only:
        unknown = set(args.only) - {use.name for use in chosen}
        if unknown:
            parser.error(
                f"no set {', '.join(unknown)}; there are {', '.join(u.name for u in chosen)}"
            )
        chosen = [use for use in chosen if use.name in args.only]
    rows = [HEAD, re.sub("[^|]+", "---", HEAD)]
    args.out.mkdir(parents=True, exist_ok=True)
    for use in chosen:
        try:
            results = measure(use, args)
            whole = all(len(runs) == SEEDS for runs in results.values())
            rows.append(
                line(use, results) if whole else f"| {use.use} | {use.name} | a seed diverged |"
            )
        except NonFiniteLoss as error:
            rows.append(f"| {use.use} | {use.name} | diverged: {error} |")
        print(rows[-1], flush=True)
        (args.out / "table.md").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
