"""Trains tokenizers on text: the same text and settings give the same one, byte for byte."""

import collections
import difflib
import functools
import io
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece
from tokenizers import normalizers

from electra_jax.data.sentencepiece_model import collapse_spaces, model_state, read_model
from electra_jax.data.tokenizer import KINDS, Tokenizer, WordPieceTokenizer
from electra_jax.data.tokenizer_state import ROLES, SPECIAL_TOKENS, bert_pipeline
from electra_jax.data.unigram_engine import GRID
from electra_jax.data.wordpiece_training import wordpiece_vocabulary
from electra_jax.errors import UsageError
from electra_jax.system.progress import track

log = logging.getLogger(__name__)

# SentencePiece keeps its sample in memory; this many lines are about 300 MB of it.
SAMPLE_LINES = 2_000_000
# With byte fallback every byte has a piece.
LEAST_PIECES = {"wordpiece": 100, "unigram": 400, "bpe": 400}
CHARACTER_COVERAGE = 0.9995  # bytes stand in for the rest
LEAST_COVERAGE = 0.98  # that SentencePiece takes
_UNITS_AT_ONCE = 1_000_000  # different ones in memory, about 100 MB of them
_SEED = 0
_SEGMENT = re.compile(r"(?s).{1,1000}(?![^ \n])|.{1,1000}")


def train_tokenizer(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    lower_case: bool = True,
    strip_accents: bool | None = None,
    character_coverage: float | None = None,
    progress: bool = False,
) -> Tokenizer:
    """Trains a tokenizer. Ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Args:
      texts: documents; a `fraction` attribute, where there is one, gives the progress bar its
        estimate of the time left.
      kind: "wordpiece", "unigram" or "bpe"; the last two are SentencePiece's, with byte
        fallback, so that no text is unknown.
      vocab_size: number of pieces wanted, special ones included.
      lower_case: whether text is lower-cased first.
      strip_accents: whether accents are taken off; by default WordPiece does as `lower_case`
        says, as in BERT, and the others do not.
      character_coverage: share of the text's characters that get a piece of their own; by
        default 0.9995, and of WordPiece what the vocabulary has room for.
      progress: whether there is a bar.

    Raises:
      UsageError: no text, an unknown kind, a size that is too small, or one too large for
        so little text.
    """
    if kind not in KINDS:
        nearest = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0)[0]
        raise UsageError(
            f"unknown kind of tokenizer {kind!r}: did you mean {nearest}? ({', '.join(KINDS)})"
        )
    if vocab_size < LEAST_PIECES[kind]:
        raise UsageError(
            f"vocab_size={vocab_size} is too small for {kind}: {LEAST_PIECES[kind]} at least"
        )
    if character_coverage is not None and not 0 < character_coverage <= 1:
        raise UsageError(f"character_coverage={character_coverage}: above 0, to 1")
    lines = _lines(
        track(texts, "text", "documents", lambda: getattr(texts, "fraction", None), progress)
    )
    first = next(lines, None)
    if first is None:
        raise UsageError("there is no text to train a tokenizer on")
    lines = itertools.chain([first], lines)
    if kind == "wordpiece":
        strip = lower_case if strip_accents is None else strip_accents
        words = _count_words(lines, lower_case, strip)
        vocabulary = wordpiece_vocabulary(
            words, vocab_size, SPECIAL_TOKENS, character_coverage, progress
        )
        return WordPieceTokenizer(vocabulary, lower_case=lower_case, strip_accents=strip)
    return _train_sentencepiece(
        lines, kind, vocab_size, _normalization(lower_case, bool(strip_accents)),
        character_coverage or CHARACTER_COVERAGE,
    )  # fmt: skip


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        text = text.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs
        for line in text.splitlines():
            for segment in _SEGMENT.findall(line):
                if segment.strip():
                    yield segment


def _count_words(
    lines: Iterable[str], lower_case: bool, strip_accents: bool
) -> collections.Counter[str]:
    """How often BERT's words occur. What stands between spaces is normalised once."""
    normalizer, pre_tokenizer = bert_pipeline(lower_case, strip_accents)
    words: collections.Counter[str] = collections.Counter()
    units: collections.Counter[str] = collections.Counter()

    def count_units() -> None:
        for unit, count in units.items():
            for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(unit)):
                words[word] += count
        units.clear()

    for line in lines:
        units.update(line.replace("\t", " ").split(" "))
        if len(units) > _UNITS_AT_ONCE:
            count_units()
    count_units()
    return words


def _normalization(lower_case: bool, strip_accents: bool) -> list[normalizers.Normalizer]:
    """SentencePiece's rules on control characters and spaces, NFKC, and case."""
    return [
        normalizers.Nmt(),
        *([normalizers.NFKD(), normalizers.StripAccents()] if strip_accents else []),
        normalizers.NFKC(),
        *([normalizers.Lowercase()] if lower_case else []),
    ]


def _train_sentencepiece(
    lines: Iterable[str],
    kind: str,
    vocab_size: int,
    normalization: list[normalizers.Normalizer],
    character_coverage: float,
) -> Tokenizer:
    # Text goes through the library's normalisation, which the tokenizer will have, and not
    # through SentencePiece's, which has no exact counterpart there.
    normalize = functools.lru_cache(2**18)(normalizers.Sequence(normalization).normalize_str)
    normal = Watched(" ".join(map(normalize, line.split(" "))) for line in lines)
    model = io.BytesIO()
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    # Otherwise the sample of a large text is another one each time.
    sentencepiece.set_random_generator_seed(_SEED)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=normal,
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            byte_fallback=True,
            input_sentence_size=SAMPLE_LINES,
            shuffle_input_sentence=True,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=pad,
            unk_piece=unk,
            bos_piece=cls,
            eos_piece=sep,
            control_symbols=[mask],
            character_coverage=character_coverage,
            train_extremely_large_corpus=kind == "unigram",
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if normal.error is not None:
            raise normal.error from None
        raise UsageError(f"cannot train {vocab_size} pieces: {_reason(error)}") from error
    proto: Any = read_model(model.getvalue())
    if kind == "unigram":
        for piece in proto.pieces:
            piece.score = round(piece.score / GRID) * GRID
    state = model_state(proto, [*normalization, *collapse_spaces()])
    return Tokenizer(state, dict(zip(ROLES, SPECIAL_TOKENS, strict=True)))


class Watched:
    """An iterator that keeps its error: SentencePiece makes another of it, even of Ctrl-C."""

    def __init__(self, items: Iterator[str]) -> None:
        self._items = items
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._items)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


def _reason(error: Exception) -> str:
    """SentencePiece's words without its source line, its options as the flags of this program."""
    text = re.sub(r"^.*?\]\s*", "", str(error).strip(), count=1).strip()
    text = (text or str(error)).splitlines()[0]
    if match := re.search(r"smaller than required_chars\D*\d+ vs (\d+)", text):
        return (
            f"the characters of this text need {int(match[1]):,} alone: raise --vocab-size, or "
            "lower --character-coverage, which has bytes stand for the rarest"
        )
    if match := re.search(r"too high\D*\d+\D*?(\d+)", text):
        return (
            f"too high for so little text, which gives {int(match[1]):,} at most: lower "
            "--vocab-size, or give more text"
        )
    if "character_coverage" in text:
        return f"--character-coverage must be from {LEAST_COVERAGE} to 1"
    return text.replace("vocab_size", "--vocab-size")
