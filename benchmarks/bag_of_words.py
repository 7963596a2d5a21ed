"""What words alone tell, as a measure of what encoders have to add.

    python benchmarks/bag_of_words.py --data DIR

Logistic regression on the set of words of a text, trained on as many rows as `finetuning.py
--train-rows 2000` takes; mean and standard deviation of three draws of SST-2, and of
SciTLDR's sentences with and without their place in the abstract. Of STS-B, Spearman's correlation
with the share of words that both texts have, for which nothing is learnt.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

DRAWS = 3


def read_tsv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def learn(texts: list[str], labels: list):
    words = CountVectorizer(binary=True, token_pattern=r"\S+")
    return make_pipeline(words, LogisticRegression(C=0.3, max_iter=500)).fit(texts, labels)


def draws(rows: list, count: int):
    """Three random choices of rows."""
    for seed in range(DRAWS):
        chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
        yield [rows[index] for index in chosen]


def classify(train: list[dict], held_out: list[dict]) -> list[float]:
    """Accuracies."""

    def columns(rows: list[dict]) -> tuple[list[str], list[str]]:
        return [row["sentence"] for row in rows], [row["label"] for row in rows]

    return [learn(*columns(rows)).score(*columns(held_out)) for rows in draws(train, 2000)]


def places(document: dict, words: bool) -> list[str]:
    """Of each sentence its words, if wanted, and how far it stands from both ends."""
    count = len(document["source"])
    return [
        f"{sentence if words else ''} from-start={place} from-end={count - place}"
        for place, sentence in enumerate(document["source"])
    ]


def summarize(train: list[dict], held_out: list[dict], words: bool) -> list[float]:
    """ROUGE-1 of the likeliest sentence, with the better of several references."""
    scorer, found = RougeScorer(["rouge1"], use_stemmer=True), []
    for rows in draws(train, 1000):
        texts = [text for row in rows for text in places(row, words)]
        model = learn(texts, [label for row in rows for label in row["source_labels"]])
        scores = []
        for row in held_out:
            best = row["source"][model.decision_function(places(row, words)).argmax()]
            scores.append(scorer.score_multi(row["target"], best)["rouge1"].fmeasure)
        found.append(statistics.mean(scores))
    return found


def overlap(row: dict) -> float:
    first, second = (set(row[name].lower().split()) for name in ("sentence1", "sentence2"))
    return len(first & second) / len(first | second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled sets")
    data = parser.parse_args().data
    reviews = [read_tsv(data / f"glue/SST-2/{part}.tsv") for part in ("train", "dev")]
    sentences = [read_jsonl(data / f"scitldr/{part}.jsonl") for part in ("train", "dev")]
    results = {
        "SST-2, accuracy": classify(*reviews),
        "SciTLDR, sentences, ROUGE-1": summarize(*sentences, words=True),
        "SciTLDR, places alone, ROUGE-1": summarize(*sentences, words=False),
    }
    for name, values in results.items():
        scores = [100 * value for value in values]
        print(f"{name:32} {statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}")
    rows = read_tsv(data / "glue/STS-B/dev.tsv")
    agreement = spearmanr([overlap(row) for row in rows], [float(row["score"]) for row in rows])
    print(f"{'STS-B, shared words, Spearman':32} {100 * agreement.statistic:.1f}")


if __name__ == "__main__":
    main()
