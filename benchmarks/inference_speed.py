"""Inference beside sentence-transformers and transformers pipelines, in turns, on real texts.

    python benchmarks/inference_speed.py --data DIR --out DIR [--rounds 5]

The model is ELECTRA-Small's shape with random weights, which OUT keeps: as a Hugging Face folder,
as a classifier that electra-jax has fine-tuned for a few steps, and as that one exported. Texts are
questions and sentences of Wikipedia, of mixed lengths. "start" is from the start of the process
to the first answers, and the rate that of the rounds after it.
"""

import argparse
import json
import statistics
from pathlib import Path

from turns import Contender, host_memory, race, take_turns

TEXTS, LENGTH, ROWS = 1000, 512, 32  # tokens of a text at most: none is cut
NAMES = ("electra-jax embed", "sentence-transformers", "electra-jax predict", "pipeline")
PEERS = {"electra-jax embed": "sentence-transformers", "electra-jax predict": "pipeline"}


def read_texts(data: Path) -> list[str]:
    """Questions and the sentences that answer them, in turn."""
    with (data / "eval/squad_sentences/train.jsonl").open() as lines:
        pairs = [json.loads(line) for _, line in zip(range(TEXTS // 2), lines, strict=False)]
    return [text for pair in pairs for text in (pair["query"], pair["positive"])]


def make_models(data: Path, out: Path) -> None:
    """An encoder, a classifier of it, and the classifier in Hugging Face's format."""
    from transformers import BertTokenizerFast, ElectraConfig, ElectraForPreTraining

    import electra_jax

    if not (out / "encoder").exists():
        config = ElectraConfig()  # the published Small
        ElectraForPreTraining(config).save_pretrained(out / "encoder")
        vocabulary = str(data / "eval/bert_uncased_vocab.txt")
        BertTokenizerFast(vocabulary, model_max_length=512).save_pretrained(out / "encoder")
    if not (out / "exported").exists():
        train, dev = (data / f"eval/clinc150/{part}.jsonl" for part in ("train", "dev"))
        electra_jax.finetune(
            "finetune/classification",
            out / "classifier",
            {
                "init.from": str(out / "encoder"), "task.train": str(train),
                "task.validation": str(dev), "task.train_rows": 150, "train.epochs": 1,
                "train.length": 128,
            },
        )  # fmt: skip
        electra_jax.export(out / "classifier", out / "exported")


def serve(name: str, data: Path, out: Path) -> None:
    """One contender, which answers all texts when it is told to."""
    texts = read_texts(data)
    if name == "electra-jax embed":
        from electra_jax import load

        model = load(out / "encoder")

        def step():
            model.embed(texts, pooling="mean")
    elif name == "electra-jax predict":
        from electra_jax import load

        model = load(out / "classifier")

        def step():
            model.predict(texts)
    elif name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(out / "encoder"), device="cpu")
        model.max_seq_length = LENGTH

        def step():
            model.encode(texts, batch_size=ROWS, show_progress_bar=False)
    else:
        from transformers import pipeline

        model = pipeline("text-classification", str(out / "exported"), device="cpu")

        def step():
            model(texts, batch_size=ROWS, truncation=True, max_length=LENGTH)

    step()
    take_turns(step, {}, host_memory)


def measure(args: argparse.Namespace) -> dict[str, dict]:
    """The figures of all contenders."""
    flags = ["--data", str(args.data), "--out", str(args.out)]
    contenders = [Contender(name, [__file__, *flags, "--serve", name]) for name in NAMES]
    found = race(contenders, args.rounds, 1)
    seconds, cpu_seconds = (
        {name: [value for turn in x["turns"] for value in turn[kind]] for name, x in found.items()}
        for kind in ("seconds", "cpu_seconds")
    )
    return {
        name: {
            "texts_per_second": TEXTS / statistics.median(seconds[name]),
            "texts_per_cpu_second": TEXTS / statistics.median(cpu_seconds[name]),
            "ratio": statistics.median(
                y / x for x, y in zip(seconds[name], seconds[PEERS.get(name, name)], strict=True)
            ),
            "start": found[name]["ready_seconds"],
        }
        for name in NAMES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with eval/")
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.data, args.out)
        return
    make_models(args.data, args.out)
    for name, x in measure(args).items():
        print(
            f"{name:22} {x['texts_per_second']:7,.0f} texts/s  {x['texts_per_cpu_second']:7,.0f} "
            f"texts/CPU-s  ratio {x['ratio']:.2f}  start {x['start']:.1f} s"
        )


if __name__ == "__main__":
    main()
