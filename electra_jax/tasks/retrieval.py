"""Find the documents that answer a query: by vectors, or by reading both together."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from electra_jax.data.collection import (
    SCHEME,
    Collection,
    collect_pairs,
    read_collection,
    write_run,
)
from electra_jax.data.examples import Example, join_segments
from electra_jax.data.labelled import Row
from electra_jax.errors import UsageError, above, at_least, checked, one_of
from electra_jax.models.encoder import ModelConfig
from electra_jax.models.heads import PoolingHead, RowHead
from electra_jax.tasks.ranking import (
    RANKING_METRICS,
    STOP_WORDS,
    Ranking,
    bm25,
    finds,
    ranking_metrics,
)
from electra_jax.tasks.task import Answer, Task, TaskConfig, pooling_name, warn_of_empty

DEPTH = 100  # documents of a ranking
ranking_figures = ranking_metrics  # its name in version 0.1


@dataclasses.dataclass(frozen=True)
class RetrievalConfig(TaskConfig):
    """`validation` and `test` may be beir:DIR."""

    name: str = "retrieval"
    query: str = "query"  # column
    positive: str = "positive"  # column of the document that answers it
    pooling: str = checked("", pooling_name)  # empty: as the encoder was trained, or the mean
    # that scores are divided by in the softmax over a batch
    temperature: float = checked(0.05, above(0))
    # The language of the words that BM25 leaves out; none: it leaves out none.
    stop_words: str = checked("en", one_of(tuple(STOP_WORDS)))


class Pair(NamedTuple):
    """A query and a document that answers it; equal texts have equal numbers."""

    query: str
    document: str
    query_number: int
    document_number: int
    negatives: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.query


class Text(NamedTuple):
    """A query, or a document of the collection that the queries search."""

    id: str
    text: str
    collection: Collection | None  # of a query


class Retrieval(Task):
    """Two towers of one encoder; the other documents of the batch, on all devices, are wrong."""

    name: ClassVar[str] = "retrieval"
    Config = RetrievalConfig
    metrics: ClassVar[tuple[str, ...]] = RANKING_METRICS
    inputs: ClassVar[tuple[str, ...]] = ("query",)
    whole_batch: ClassVar[bool] = True
    grouped_by = "document"
    held_out_loss = False  # texts are judged one by one, and have no wrong ones beside them
    suffix = ".trec"

    def parse(self, row: Row, labelled: bool) -> Any:
        return Text(row.where, row.text(self.config.query), None)

    def fit(self, records: Sequence[Any]) -> None:
        self.state["fitted"] = True

    def read(self, sources: str, labelled: bool = True) -> list[Any]:
        """The texts of a collection, or of pairs."""
        if sources.startswith(SCHEME):
            return self.texts(read_collection(sources))
        return self.texts(self._collect(self.rows(sources, labelled)))

    def read_splits(self, seed: int = 0) -> tuple[list[Any], list[Any]]:
        train, validation = self.split_rows()
        columns = (self.config.query, self.config.positive)
        warn_of_empty(
            [
                row
                for row in (*train, *(validation or ()))
                if not all(row.text(column).strip() for column in columns)
            ]
        )
        collection = self._collect(train)
        pairs = [
            Pair(query, collection.documents[document], index, int(document))
            for index, (id, query) in enumerate(collection.queries.items())
            for document in collection.relevant[id]
        ]
        if not self.state:
            self.fit(pairs)
        pairs = self.draw(pairs, seed)
        if validation is None:
            return pairs, self.read(self.config.validation)
        return pairs, self.texts(self._collect(validation))

    def vector_pooling(self, model: ModelConfig) -> str:
        return self.config.pooling or model.pooling or "mean"

    def row_pooling(self, model: ModelConfig) -> str:
        return self.vector_pooling(model)

    def group(self, row: Row) -> str:
        """Queries on one document are held out together."""
        return row.text(self.config.positive)

    def _collect(self, rows: Iterable[Row]) -> Collection:
        return collect_pairs(rows, self.config.query, self.config.positive)

    def texts(self, collection: Collection) -> list[Any]:
        """Queries, then documents."""
        queries = [Text(id, text, collection) for id, text in collection.queries.items()]
        return queries + [Text(id, text, None) for id, text in collection.documents.items()]

    @property
    def exported_as(self) -> str:
        return "Model"

    def head(self, model: ModelConfig) -> nn.Module:
        return PoolingHead(self.vector_pooling(model))

    def examples(
        self, records: Sequence[Any], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer
        if not records or isinstance(records[0], Text):
            rows = [[ids] for ids in tokenizer.encode([record.text for record in records])]
            targets: list[dict] = [{} for _ in records]
        else:
            queries = tokenizer.encode([record.query for record in records])
            documents = tokenizer.encode([record.document for record in records])
            rows = [list(pair) for pair in zip(queries, documents, strict=True)]
            targets = [
                {
                    "query": np.array(record.query_number, np.int32),
                    "document": np.array(record.document_number, np.int32),
                }
                for record in records
            ]
        examples = []
        for index, (row, target) in enumerate(zip(rows, targets, strict=True)):
            joined = [join_segments(tokenizer, ids, None, length) for ids in row]
            tokens, types = ([part[side] for part in joined] for side in (0, 1))
            examples.append(Example(tokens, types, target, index))
        return examples

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Each query's document against all documents of the batch (no loss of single texts)."""
        if "document" not in batch:
            return jnp.zeros(())
        scores_BB = outputs[:, 0] @ outputs[:, 1].T / self.config.temperature
        # Rows that fill up are no candidates, nor is the same document a second time, nor
        # another that answers the same query.
        same_BB = batch["document"][:, None] == batch["document"][None]
        same_BB |= batch["query"][:, None] == batch["query"][None]
        other_BB = same_BB & ~jnp.eye(len(same_BB), dtype=bool)
        scores_BB = jnp.where(other_BB | (batch["weight"][None] == 0), -1e9, scores_BB)
        labels_B = jnp.arange(len(same_BB))
        losses_B = optax.softmax_cross_entropy_with_integer_labels(scores_BB, labels_B)
        return (losses_B * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Any]
    ) -> list[Answer]:
        vectors = np.stack([np.asarray(output) for output in outputs])
        documents = [index for index, record in enumerate(records) if record.collection is None]
        answers: list[Answer] = []
        for index, record in enumerate(records):
            if record.collection is None:
                answers.append({"id": record.id, "vector": vectors[index].tolist()})
                continue
            scores = vectors[documents] @ vectors[index]
            best = np.argsort(-scores, kind="stable")[: DEPTH + 1]
            ranking = [(records[documents[i]].id, float(scores[i])) for i in best]
            answers.append(
                {"id": record.id, "ranking": finds(record.collection, record.id, ranking, DEPTH)}
            )
        return answers

    def score(self, answers: Sequence[Answer], records: Sequence[Any]) -> dict[str, float]:
        rankings = {answer["id"]: answer["ranking"] for answer in answers if "ranking" in answer}
        collection = next(r.collection for r in records if r.collection is not None)
        metrics = ranking_metrics(rankings, collection.relevant)
        return {name: metrics[name] for name in self.metrics}

    def baseline(self, train: Sequence[Any], records: Sequence[Any]) -> list[Answer]:
        """BM25."""
        collection = next(r.collection for r in records if r.collection is not None)
        rankings = bm25(collection, DEPTH, self.config.stop_words)
        return [{"id": id, "ranking": ranking} for id, ranking in rankings.items()]

    def write(self, answers: Sequence[Answer], records: Sequence[Any], path: Path) -> None:
        rankings = {answer["id"]: answer["ranking"] for answer in answers if "ranking" in answer}
        write_run(rankings, path, self.name)


@dataclasses.dataclass(frozen=True)
class RerankingConfig(RetrievalConfig):
    name: str = "reranking"
    # Wrong documents beside the right one: what BM25 finds, and random ones.
    negatives: int = checked(3, at_least(1))
    candidates: int = checked(50, at_least(1))  # of BM25, to be put in order


class Candidates(NamedTuple):
    """A query with the documents that BM25 finds."""

    id: str
    text: str
    documents: list[str]
    collection: Collection | None


class Reranking(Retrieval):
    """A cross-encoder puts the documents in order that BM25 finds."""

    name: ClassVar[str] = "reranking"
    Config = RerankingConfig
    metrics = ("ndcg@10", "mrr@10", "recall@10")  # of the 100 first it sees but the candidates
    inputs = ("query", "positive")
    whole_batch = False

    def parse(self, row: Row, labelled: bool) -> Any:
        collection = self._collect([row])
        return Candidates(row.where, row.text(self.config.query), ["0"], collection)

    def texts(self, collection: Collection) -> list[Any]:
        found = bm25(collection, self.config.candidates, self.config.stop_words)
        if not any(found.values()):
            raise UsageError("BM25 finds no document for any query: there is nothing to rerank")
        return [
            Candidates(id, text, [document for document, _ in found[id]], collection)
            for id, text in collection.queries.items()
        ]

    def read_splits(self, seed: int = 0) -> tuple[list[Any], list[Any]]:
        pairs, validation = super().read_splits(seed)
        documents = list({pair.document_number: pair.document for pair in pairs}.values())
        right: dict[int, set[str]] = {}
        for pair in pairs:
            right.setdefault(pair.query_number, set()).add(pair.document)
        queries = {f"q{index}": pair.query for index, pair in enumerate(pairs)}
        numbers = {str(index): text for index, text in enumerate(documents)}
        wanted = self.config.negatives
        most = max(map(len, right.values()))
        found = bm25(Collection(queries, numbers, {}), wanted + most, self.config.stop_words)
        rng = np.random.default_rng(seed)
        train = []
        for index, pair in enumerate(pairs):
            known = right[pair.query_number]
            hard = [numbers[id] for id, _ in found[f"q{index}"] if numbers[id] not in known]
            drawn = [documents[i] for i in rng.integers(len(documents), size=4 * wanted)]
            easy = [text for text in drawn if text not in known]
            negatives = (hard[: (wanted + 1) // 2] + easy)[:wanted]
            if len(negatives) < wanted:
                raise UsageError("task.train has too few documents to draw wrong ones from")
            train.append(pair._replace(negatives=tuple(negatives)))
        return train, validation

    @property
    def exported_as(self) -> str:
        return "ForSequenceClassification" if self.config.head == "default" else ""

    def vector_pooling(self, model: ModelConfig) -> str:
        return self.config.pooling or model.block.pooling

    def row_pooling(self, model: ModelConfig) -> str:
        return self.config.pooling

    def head(self, model: ModelConfig) -> nn.Module:
        return RowHead(model, 1, self.config.pooling, self.config.head == "official")

    def examples(
        self, records: Sequence[Any], length: int, labelled: bool, train: bool
    ) -> list[Example]:
        tokenizer = self.tokenizer

        @functools.cache
        def encode(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode([text])[0])

        examples = []
        for index, record in enumerate(records):
            if isinstance(record, Pair):
                texts = [record.document, *record.negatives]
                joined = [
                    join_segments(tokenizer, encode(record.query), encode(x), length) for x in texts
                ]
                tokens, types = ([part[side] for part in joined] for side in (0, 1))
                examples.append(Example(tokens, types, {}, index))
                continue
            for document in record.documents:
                text = record.collection.documents[document]
                row, kinds = join_segments(tokenizer, encode(record.text), encode(text), length)
                examples.append(Example([row], [kinds], {}, index))
        return examples

    def loss(self, outputs: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The first of each example's documents against the others."""
        if outputs.ndim == 2:
            return jnp.zeros(())
        losses_B = -jax.nn.log_softmax(outputs[..., 0], axis=-1)[:, 0]
        return (losses_B * batch["weight"]).sum()

    def answers(
        self, outputs: Sequence[Any], examples: Sequence[Example], records: Sequence[Any]
    ) -> list[Answer]:
        rankings: list[Ranking] = [[] for _ in records]
        for output, example in zip(outputs, examples, strict=True):
            ranking = rankings[example.record]
            ranking.append((records[example.record].documents[len(ranking)], float(output[0])))
        return [
            {"id": record.id, "ranking": sorted(ranking, key=lambda item: -item[1])}
            for record, ranking in zip(records, rankings, strict=True)
        ]
