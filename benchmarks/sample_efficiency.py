"""Which objective learns most from the same text and the same training FLOPs?

    python benchmarks/sample_efficiency.py --store STORE --eval-data DIR --out DIR

Pretrains the same tiny encoder with each objective for the same number of training FLOPs
(the generator's counted), and probes it at three points: a linear classifier on the frozen
hidden states, for intents (CLINC150: mean over tokens), sentiment (SST-2: mean over tokens)
and chunks (CoNLL-2000: each word's first token), of at most 5,000 training rows, drawn
anew for each of three seeds. A never-pretrained encoder is probed beside them. Prints a table
and writes table.md, figure.png and scores.jsonl to --out; what is there is not done again.
"""

import argparse
import csv
import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.inference import load
from electra_jax.models.electra import Electra, init_params
from electra_jax.models.flops import train_flops_per_token
from electra_jax.objectives.masking import max_masked
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretrain import open_stores, pretrain, resolve

matplotlib.use("agg")
import matplotlib.pyplot as plt

RUNS = [("modern", name) for name in
        ("electra", "mlm", "replace_mlm", "all_tokens_mlm", "electra_masked")]  # fmt: skip
RUNS += [("published", "electra"), ("published", "mlm")]
PUBLISHED = ["model.architecture=published", "generator.width=0.5", "generator.depth=1.0"]
POINTS = 3
SEEDS = 3
TRAIN_ROWS, TEST_ROWS = 5000, 2000
LENGTH = 64
LABELS_AHEAD = 256  # rows encoded at once


class Row(NamedTuple):
    words: list[str]
    labels: list[str]  # one for the row, or one a word


def clinc150(folder: Path, part: str) -> Iterator[Row]:
    for line in (folder / "clinc150" / f"{part}.jsonl").open():
        row = json.loads(line)
        yield Row(row["text"].split(), [row["label"]])


def sst2(folder: Path, part: str) -> Iterator[Row]:
    with (folder / "glue" / "SST-2" / f"{part}.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield Row(row["sentence"].split(), [row["label"]])


def conll2000(folder: Path, part: str) -> Iterator[Row]:
    """Its one file holds the training part; every fifth sentence is held out here."""
    sentences = (folder / "conll2000" / "train.txt").read_text().strip().split("\n\n")
    for index, sentence in enumerate(sentences):
        if (index % 5 == 0) == (part == "dev"):
            words, _, tags = zip(*(line.split() for line in sentence.splitlines()), strict=True)
            yield Row(list(words), list(tags))


TASKS = {"CLINC150": clinc150, "SST-2": sst2, "CoNLL-2000": conll2000}


def encode(tokenizer: Tokenizer, rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [R, LENGTH], and of each word its first token's position [R, LENGTH] or 0."""
    ids = np.full((len(rows), LENGTH), tokenizer.pad_id, np.int32)
    firsts = np.zeros((len(rows), LENGTH), np.int32)
    for index, row in enumerate(rows):
        pieces = [p or [tokenizer.unk_id] for p in tokenizer.encode(row.words)]
        starts = 1 + np.cumsum([0, *map(len, pieces)])[:-1]
        kept = [tokenizer.cls_id, *itertools.chain(*pieces)][: LENGTH - 1]
        ids[index, : len(kept) + 1] = [*kept, tokenizer.sep_id]
        firsts[index, : min(len(starts), LENGTH)] = np.where(starts < LENGTH - 1, starts, 0)[
            :LENGTH
        ]
    return ids, firsts


def features(config: PretrainConfig, params: dict, tokenizer: Tokenizer, rows: list[Row]):
    """Frozen hidden states [N, D] and labels [N], of rows or, where they have one, of words."""
    electra = Electra(config.model, config.generator)

    @jax.jit
    def hidden(ids):
        documents = (ids != tokenizer.pad_id).astype(jnp.int32)
        return electra.apply({"params": params}, ids, documents, 0 * ids, method="encode")

    ids, firsts = encode(tokenizer, rows)
    padding = -len(ids) % LABELS_AHEAD
    batches = np.split(np.pad(ids, ((0, padding), (0, 0))), (len(ids) + padding) // LABELS_AHEAD)
    states = np.concatenate([np.asarray(hidden(batch)) for batch in batches])[: len(ids)]
    if all(len(row.labels) == 1 for row in rows):
        real = (ids != tokenizer.pad_id)[..., None]
        return (states * real).sum(1) / real.sum(1), [row.labels[0] for row in rows]
    vectors, labels = [], []
    for state, first, row in zip(states, firsts, rows, strict=True):
        for position, label in zip(first, row.labels, strict=False):
            if position:
                vectors.append(state[position])
                labels.append(label)
    return np.array(vectors), labels


def probe(train: tuple, test: tuple, seed: int) -> float:
    """Accuracy of a linear classifier, by 300 steps of Adam on all rows at once."""
    (x, labels), (x_test, labels_test) = train, test
    classes = {label: index for index, label in enumerate(sorted(set(labels)))}
    mean, scale = x.mean(0), x.std(0) + 1e-6
    y = jnp.array([classes[label] for label in labels])
    y_test = np.array([classes.get(label, -1) for label in labels_test])
    inputs = jnp.asarray((x - mean) / scale)
    optimizer = optax.adam(0.05)
    weights = 0.01 * jax.random.normal(jax.random.key(seed), (x.shape[1] + 1, len(classes)))

    def loss(weights):
        logits = inputs @ weights[:-1] + weights[-1]
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return cross_entropy + 1e-4 * jnp.sum(weights[:-1] ** 2)

    def step(carry, _):
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    start = (weights, optimizer.init(weights))
    (weights, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=300))(start)
    guesses = np.asarray(((x_test - mean) / scale) @ weights[:-1] + weights[-1]).argmax(-1)
    return float((guesses == y_test).mean())


def scores(config: PretrainConfig, params: dict, tokenizer: Tokenizer, folder: Path) -> dict:
    """Of each task, the accuracy for each seed."""
    result: dict[str, list[float]] = {}
    for task, read in TASKS.items():
        train, test = list(read(folder, "train")), list(read(folder, "dev"))[:TEST_ROWS]
        held_out = features(config, params, tokenizer, test)
        for seed in range(SEEDS):
            drawn = np.random.default_rng(seed).permutation(len(train))[:TRAIN_ROWS]
            known = features(config, params, tokenizer, [train[i] for i in drawn])
            result.setdefault(task, []).append(probe(known, held_out, seed))
    return result


def make_config(architecture: str, objective: str, store: str, flops: float):
    """The run's config, and the training FLOPs of one of its steps."""
    fields = [f"data.store={store}", *(PUBLISHED if architecture == "published" else [])]
    if objective == "mlm":
        fields = [field for field in fields if not field.startswith("generator")]
        fields += ["generator.width=1.0"]
    [(opened, _)] = open_stores(store)

    def build(*more: str) -> PretrainConfig:
        config = pretrain_config(
            load_config(f"pretrain/family:{objective}", [*fields, "train.time_budget=", *more])
        )
        return resolve(config, opened.tokenizer.vocab_size)

    config = build()
    masked = max_masked(config.objective.mask_rate, config.data.length)
    per_token = sum(
        train_flops_per_token(
            config.model, config.generator, config.data.length, masked, config.electra.head
        ).values()
    )
    per_step = per_token * config.train.batch_size * config.data.length
    every = max(1, round(flops / per_step / POINTS))
    return build(
        f"train.steps={POINTS * every}", f"eval.every_steps={every}",
        f"checkpoint.every_steps={every}", f"checkpoint.keep={POINTS}",
    ), per_step  # fmt: skip


def run(architecture: str, objective: str, args: argparse.Namespace) -> Iterator[dict]:
    """Pretrains, then probes at each point; the first run of an architecture before it, too."""
    config, per_step = make_config(architecture, objective, args.store, args.flops)
    workdir = args.out / f"{architecture}-{objective}"
    if not pretrain(config, workdir):
        raise SystemExit("stopped and saved; the same command goes on from there")
    if objective == "electra":
        model = load(workdir, "last")
        fresh = jax.jit(lambda key: init_params(config.electra, key))(jax.random.key(0))
        yield {"objective": "none", "flops": 0.0,
               "scores": scores(model.config, fresh, model.tokenizer, args.eval_data)}  # fmt: skip
    for point in range(1, POINTS + 1):
        step = config.train.steps * point // POINTS
        model = load(workdir, str(step))
        yield {"objective": objective, "flops": step * per_step, "steps": step,
               "scores": scores(model.config, model.params, model.tokenizer,
                                args.eval_data)}  # fmt: skip


def table(lines: list[dict]) -> str:
    """Markdown: accuracies in percent, mean and standard deviation over seeds."""
    rows = ["| architecture | objective | TFLOP | " + " | ".join(TASKS) + " | mean |",
            "|---|---|---|" + "---|" * (len(TASKS) + 1)]  # fmt: skip
    for line in lines:
        cells = [
            f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
            for values in line["scores"].values()
        ]
        rows.append(
            f"| {line['architecture']} | {line['objective']} | {line['flops'] / 1e12:.0f} | "
            + " | ".join(cells)
            + f" | {100 * mean_score(line):.1f} |"
        )
    return "\n".join(rows) + "\n"


def mean_score(line: dict) -> float:
    return statistics.mean(statistics.mean(values) for values in line["scores"].values())


def plot(lines: list[dict], path: Path) -> None:
    """Mean score against training FLOPs."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for architecture, objective in RUNS:
        points = [
            (line["flops"] / 1e12, 100 * mean_score(line))
            for line in lines
            if line["architecture"] == architecture and line["objective"] in ("none", objective)
        ]
        style = "-o" if architecture == "modern" else "--s"
        axes.plot(*zip(*points, strict=True), style, label=f"{objective} ({architecture})")
    axes.set(xlabel="training TFLOP", ylabel="mean probing accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="token store (see `electra-jax prepare`)")
    parser.add_argument("--eval-data", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flops", type=float, default=1e14, help="of each run, default 1e14")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    enable_compilation_cache()
    file = args.out / "scores.jsonl"
    lines = [json.loads(line) for line in file.open()] if file.exists() else []
    for architecture, objective in RUNS:
        if any((x["architecture"], x["objective"]) == (architecture, objective) for x in lines):
            continue
        new = [{"architecture": architecture, **x} for x in run(architecture, objective, args)]
        with file.open("a") as output:
            output.writelines(json.dumps(line) + "\n" for line in new)
        lines += new
        print(table(new), flush=True)
    (args.out / "table.md").write_text(table(lines))
    plot(lines, args.out / "figure.png")
    print(table(lines))


if __name__ == "__main__":
    main()
