"""Which objective learns most from the same text and the same training FLOPs?

    python benchmarks/sample_efficiency.py --store STORE --eval-data DIR --out DIR

Pretrains the same tiny encoder with each objective for the same number of training FLOPs
(the generator's counted), and fine-tunes it at three points for intents (CLINC150) and
sentiment (SST-2), each from the mean over tokens, and for chunks (CoNLL-2000), from each
word's first token: 1,000 training rows, drawn anew for each of three seeds.
A never-pretrained encoder is fine-tuned beside them. Prints a table and writes table.md,
figure.png and scores.jsonl to --out; what is there is not done again.
"""

import argparse
import csv
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

from electra_jax.config import PretrainConfig, load_config, pretrain_config
from electra_jax.data.mixture import Mixture
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.inference.pretrained import load_pretrained
from electra_jax.models.electra import Electra, init_params
from electra_jax.parallel.runtime import enable_compilation_cache
from electra_jax.pretraining.pretrain import pretrain, resolve_vocabulary
from electra_jax.pretraining.program import flops_per_token
from electra_jax.training.optimizer import matrix_dimensions

matplotlib.use("agg")
import matplotlib.pyplot as plt

RUNS = [("modern", name) for name in
        ("electra", "mlm", "replace_mlm", "all_tokens_mlm", "electra_masked")]  # fmt: skip
RUNS += [("published", "electra"), ("published", "mlm")]
PUBLISHED = ["model.architecture=published", "generator.width=0.5", "generator.depth=1.0"]
POINTS = 3
SEEDS = 3
TRAIN_ROWS, TEST_ROWS = 1000, 1000
BATCH = 32
MATRIX_RATE, RATE = 0.01, 1e-2  # peaks of Muon and AdamW
HIDDEN = 128  # of `tiny`


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


class Task(NamedTuple):
    read: Callable[[Path, str], Iterator[Row]]
    length: int  # in tokens, to which rows are cut or padded
    epochs: int


TASKS = {
    "CLINC150": Task(clinc150, 24, 8),
    "SST-2": Task(sst2, 48, 5),
    "CoNLL-2000": Task(conll2000, 64, 5),
}


class Examples(NamedTuple):
    """Rows of tokens; of each word, or of the row as a whole, a label."""

    ids_RL: np.ndarray
    positions_RW: np.ndarray  # of each word's first token
    labels_RW: np.ndarray  # -1 where there is none

    def at(self, rows: np.ndarray) -> "Examples":
        return Examples(*(array[rows] for array in self))


def encode(tokenizer: Tokenizer, rows: list[Row], classes: dict[str, int], length: int) -> Examples:
    """Rows of `length` tokens; words cut off have no label, nor have labels not in `classes`."""
    pooled = all(len(row.labels) == 1 for row in rows)
    ids = np.full((len(rows), length), tokenizer.pad_id, np.int32)
    positions = np.zeros((len(rows), 1 if pooled else length), np.int32)
    labels = np.full(positions.shape, -1, np.int32)
    for index, row in enumerate(rows):
        pieces = [p or [tokenizer.unk_id] for p in tokenizer.encode(row.words)]
        kept = [tokenizer.cls_id, *itertools.chain(*pieces)][: length - 1]
        ids[index, : len(kept) + 1] = [*kept, tokenizer.sep_id]
        starts = 1 + np.cumsum([0, *map(len, pieces)])[:-1]
        for word, label in enumerate(row.labels):
            if pooled or starts[word] < length - 1:
                positions[index, word] = 0 if pooled else starts[word]
                labels[index, word] = classes.get(label, -1)
    return Examples(ids, positions, labels)


class FineTuning:
    """Muon and AdamW on an encoder and a linear head; compiled once for each task."""

    def __init__(self, config: PretrainConfig, pad_id: int, classes: int, steps: int):
        self._electra = Electra(config.model, config.generator)
        self._pad_id, self._classes = pad_id, classes
        # As in pretraining: AdamW alone moves matrices little that Muon has made large.
        matrix_rate, rate = (
            optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)
            for peak in (MATRIX_RATE, RATE)
        )
        muon = optax.contrib.muon(
            matrix_rate,
            adam_learning_rate=rate,
            muon_weight_dimension_numbers=matrix_dimensions,
        )
        self._optimizer = optax.chain(optax.clip_by_global_norm(1.0), muon)
        self.train, self.guess = jax.jit(self._train), jax.jit(self._guess)

    def _logits(self, params, examples):
        ids_RL, positions_RW, _ = examples
        real_RL = ids_RL != self._pad_id
        hidden_RLD = self._electra.apply(
            {"params": params["encoder"]}, ids_RL, real_RL.astype(jnp.int32), 0 * ids_RL,
            method="encode",
        )  # fmt: skip
        if positions_RW.shape[1] == 1:
            real_RL1 = real_RL[..., None]
            x_RWD = (hidden_RLD * real_RL1).sum(1, keepdims=True) / real_RL1.sum(1, keepdims=True)
        else:
            x_RWD = jnp.take_along_axis(hidden_RLD, positions_RW[..., None], axis=1)
        return x_RWD @ params["kernel"] + params["bias"]

    def _train(self, encoder, examples, batches_SR, key):
        """Parameters after all batches, given as row numbers [steps, rows]."""
        kernel = 0.02 * jax.random.normal(key, (HIDDEN, self._classes))
        params = {"encoder": encoder, "kernel": kernel, "bias": jnp.zeros(self._classes)}

        def loss(params, batch):
            counted_RW = batch.labels_RW >= 0
            losses_RW = optax.softmax_cross_entropy_with_integer_labels(
                self._logits(params, batch), jnp.maximum(batch.labels_RW, 0)
            )
            return (losses_RW * counted_RW).sum() / jnp.maximum(counted_RW.sum(), 1)

        def step(carry, rows):
            params, state = carry
            grads = jax.grad(loss)(params, Examples(*(array[rows] for array in examples)))
            updates, state = self._optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, self._optimizer.init(params))
        (params, _), _ = jax.lax.scan(step, start, batches_SR)
        return params

    def _guess(self, params, examples):
        return self._logits(params, examples).argmax(-1)


def scores(config: PretrainConfig, params: dict, tokenizer: Tokenizer, folder: Path) -> dict:
    """Of each task, the accuracy for each seed: of rows, or of words."""
    encoder = {name: params[name] for name in ("embeddings", "embedding_delta") if name in params}
    encoder["discriminator"] = {"encoder": params["discriminator"]["encoder"]}
    result: dict[str, list[float]] = {}
    for name, task in TASKS.items():
        train, test = list(task.read(folder, "train")), list(task.read(folder, "dev"))
        test = test[:: max(1, len(test) // TEST_ROWS)][:TEST_ROWS]
        labels = sorted({label for row in train for label in row.labels})
        classes = {label: index for index, label in enumerate(labels)}
        held_out = encode(tokenizer, test, classes, task.length)
        rows = min(TRAIN_ROWS, len(train))
        steps = task.epochs * (rows // BATCH)
        tuning = FineTuning(config, tokenizer.pad_id, len(classes), steps)
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            chosen = [train[row] for row in rng.permutation(len(train))[:rows]]
            drawn = encode(tokenizer, chosen, classes, task.length)
            order = [rng.permutation(rows)[: rows // BATCH * BATCH] for _ in range(task.epochs)]
            batches = np.concatenate(order).reshape(steps, BATCH)
            tuned = tuning.train(encoder, drawn, batches, jax.random.key(seed))
            guesses = np.concatenate(
                [
                    np.asarray(tuning.guess(tuned, held_out.at(part)))
                    for part in np.array_split(np.arange(len(test)), max(1, len(test) // 200))
                ]
            )
            counted = held_out.labels_RW >= 0
            right = (guesses == held_out.labels_RW)[counted].mean()
            result.setdefault(name, []).append(float(right))
    return result


def make_config(architecture: str, objective: str, store: str, flops: float):
    """The run's config, and the training FLOPs of one of its steps."""
    fields = [f"data.store={store}", *(PUBLISHED if architecture == "published" else [])]
    if objective == "mlm":
        fields = [field for field in fields if not field.startswith("generator")]
        fields += ["generator.width=1.0"]
    tokenizer = Mixture.open(store).tokenizer

    def build(*more: str) -> PretrainConfig:
        config = pretrain_config(
            load_config(f"pretrain/family:{objective}", [*fields, "train.time_budget=", *more])
        )
        return resolve_vocabulary(config, tokenizer.vocab_size)

    config = build()
    per_step = sum(flops_per_token(config).values()) * config.train.batch_size * config.data.length
    every = max(1, round(flops / per_step / POINTS))
    return build(
        f"train.steps={POINTS * every}", f"eval.every_steps={every}",
        f"checkpoint.every_steps={every}", f"checkpoint.keep={POINTS}",
    ), per_step  # fmt: skip


def run(architecture: str, objective: str, args: argparse.Namespace) -> Iterator[dict]:
    """Pretrains, then probes at each point; the first run of an architecture before it, too."""
    config, per_step = make_config(architecture, objective, args.store, args.flops)
    workdir = args.out / f"{architecture}-{objective}"
    pretrain(config, workdir)
    if objective == "electra":
        model = load_pretrained(workdir, "last")
        fresh = jax.jit(lambda key: init_params(config.electra, key))(jax.random.key(0))
        yield {"objective": "none", "flops": 0.0,
               "scores": scores(model.config, fresh, model.tokenizer, args.eval_data)}  # fmt: skip
    for point in range(1, POINTS + 1):
        step = config.train.steps * point // POINTS
        model = load_pretrained(workdir, str(step))
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
    """Scores against training FLOPs, a panel for each set, with the spread over seeds."""
    figure, panels = plt.subplots(
        1, len(TASKS), figsize=(4 * len(TASKS), 4), sharex=True, layout="constrained"
    )
    for architecture, objective in RUNS:
        run = [x for x in lines if x["architecture"] == architecture]
        run = [x for x in run if x["objective"] in ("none", objective)]
        if len(run) <= 1:
            continue
        style = "-o" if architecture == "modern" else "--s"
        for axes, task in zip(panels, TASKS, strict=True):
            scores = [[100 * value for value in x["scores"][task]] for x in run]
            axes.errorbar(
                [x["flops"] / 1e12 for x in run],
                [statistics.mean(values) for values in scores],
                [statistics.stdev(values) for values in scores],
                fmt=style, markersize=4, label=f"{objective} ({architecture})",
            )  # fmt: skip
            axes.set(title=task, xlabel="training TFLOP")
            axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy after fine-tuning, %")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=110)


def read(file: Path) -> list[dict]:
    """What is measured so far, in the order of `RUNS`."""
    lines = [json.loads(line) for line in file.open()] if file.exists() else []
    objectives = ["none", *(objective for _, objective in RUNS)]
    return sorted(lines, key=lambda x: (x["architecture"], objectives.index(x["objective"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="token store (see `electra-jax prepare`)")
    parser.add_argument("--eval-data", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flops", type=float, default=3e13, help="of each run, default 3e13")
    parser.add_argument(
        "--only", nargs="+", choices=list(map("-".join, RUNS)), default=list(map("-".join, RUNS)),
        help="these runs: so that several processes share the work",
    )  # fmt: skip
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    enable_compilation_cache()
    file = args.out / "scores.jsonl"
    done = {(line["architecture"], line["objective"]) for line in read(file)}
    for architecture, objective in RUNS:
        if (architecture, objective) in done or f"{architecture}-{objective}" not in args.only:
            continue
        new = [{"architecture": architecture, **x} for x in run(architecture, objective, args)]
        with file.open("a") as output:
            output.write("".join(json.dumps(line) + "\n" for line in new))
        print(table(new), flush=True)
    lines = read(file)
    (args.out / "table.md").write_text(table(lines))
    plot(lines, args.out / "figure.png")
    print(table(lines))


if __name__ == "__main__":
    main()
