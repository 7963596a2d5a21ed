"""The text of a run: one token store or several, interleaved by weight."""

import dataclasses
import logging

import numpy as np

from electra_jax.data.sampler import DataConfig, Sampler, interleave, parse_stores
from electra_jax.data.token_store import TokenStore
from electra_jax.data.tokenizer import Tokenizer
from electra_jax.errors import UsageError

log = logging.getLogger(__name__)


def source_of_row(text: str) -> np.ndarray:
    """Which of the stores of `data.store` each row of a period comes from."""
    return interleave(np.array([weight for _, weight in parse_stores(text)]))[0]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Token stores with their weights, all made with one tokenizer."""

    stores: tuple[TokenStore, ...]
    weights: tuple[float, ...]

    @classmethod
    def open(cls, text: str, tokenizer: Tokenizer | None = None) -> "Mixture":
        """Opens the stores of `data.store`.

        Args:
          text: see `parse_stores`.
          tokenizer: the one they must have been made with; by default the first store's.

        Raises:
          UsageError: one is missing or broken, or was made with another tokenizer.
        """
        paths, weights = zip(*parse_stores(text), strict=True)
        stores = tuple(TokenStore.open(path) for path in paths)
        tokenizer = tokenizer or stores[0].tokenizer
        for store in stores:
            if store.tokenizer.identity != tokenizer.identity:
                raise UsageError(
                    f"{store.path} was made with another tokenizer; prepare its text again with "
                    "the one in use"
                )
        return cls(stores, weights)

    @property
    def tokenizer(self) -> Tokenizer:
        """The one that all stores were made with."""
        return self.stores[0].tokenizer

    @property
    def identity(self) -> str:
        """Changes with the text of any store."""
        return "+".join(store.identity for store in self.stores)

    @property
    def unigram_entropy(self) -> float | None:
        """Nats that a training token costs whoever knows the frequencies of its store's tokens.

        None if a store does not say: earlier versions did not count it.
        """
        entropies = [
            store.manifest["splits"]["train"].get("unigram_entropy") for store in self.stores
        ]
        if None in entropies:
            return None
        return float(np.average(entropies, weights=self.weights))

    def held_out(self) -> "Mixture | None":
        """The stores that have a validation split; warns of those that have none beside them."""
        has = [len(store.split("validation").tokens) > 0 for store in self.stores]
        if not any(has):
            return None
        for store, holds in zip(self.stores, has, strict=True):
            if not holds:
                log.warning("%s holds nothing out: it is not evaluated on", store.path)
        kept = [i for i, holds in enumerate(has) if holds]
        return Mixture(tuple(self.stores[i] for i in kept), tuple(self.weights[i] for i in kept))

    def sampler(self, split: str, config: DataConfig, rows: int, seed: int) -> Sampler:
        """The sampler over one split, with global batches of `rows`."""
        splits = [store.split(split) for store in self.stores]
        return Sampler(
            list(zip(splits, self.weights, strict=True)),
            length=config.length,
            layout=config.layout,
            batch_size=rows,
            seed=seed,
            cls_id=self.tokenizer.cls_id,
            sep_id=self.tokenizer.sep_id,
            pad_id=self.tokenizer.pad_id,
            pipeline=config.pipeline,
        )
