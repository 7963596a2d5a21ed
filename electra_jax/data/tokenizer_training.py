"""Trains the tokenizers of `tokenizer.py` on text."""

import io
import itertools
import re
from collections.abc import Iterable, Iterator

import sentencepiece
import tokenizers
from tokenizers import models, trainers

from electra_jax.data.tokenizer import (
    SPECIAL_TOKENS,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    bert_pipeline,
    check_kind,
    segments,
    sentencepiece_normalization,
)
from electra_jax.errors import UsageError

# SentencePiece keeps its sample in memory; this many lines are about 300 MB of it.
SAMPLE_LINES = 2_000_000
# With byte fallback every byte has a piece.
LEAST_PIECES = {"wordpiece": 100, "unigram": 400, "bpe": 400}


def train_tokenizer(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    lower_case: bool = True,
    strip_accents: bool | None = None,
) -> WordPieceTokenizer | SentencePieceTokenizer:
    """Trains a tokenizer. Ids 0 to 4 are [PAD] [UNK] [CLS] [SEP] [MASK].

    Args:
      texts: documents.
      kind: "wordpiece", "unigram" or "bpe"; the last two are SentencePiece's, with byte
        fallback, so that no text is unknown.
      vocab_size: number of pieces wanted, special ones included.
      lower_case: whether text is lower-cased first.
      strip_accents: of WordPiece; by default as `lower_case`, as in BERT.

    Raises:
      UsageError: no text, an unknown kind, a size that is too small, or one too large for
        so little text.
    """
    check_kind(kind)
    if vocab_size < LEAST_PIECES[kind]:
        raise UsageError(
            f"vocab_size={vocab_size} is too small for {kind}: {LEAST_PIECES[kind]} at least"
        )
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise UsageError("there is no text to train a tokenizer on")
    lines = itertools.chain([first], lines)
    if kind == "wordpiece":
        return _train_wordpiece(lines, vocab_size, lower_case, strip_accents)
    if strip_accents is not None:
        raise UsageError("strip_accents is an option of wordpiece alone")
    return _train_sentencepiece(lines, kind, vocab_size, lower_case)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for _, segment in segments(text):
            for line in segment.splitlines():
                if line.strip():
                    yield line


def _train_wordpiece(
    lines: Iterator[str], vocab_size: int, lower_case: bool, strip_accents: bool | None
) -> WordPieceTokenizer:
    strip = lower_case if strip_accents is None else strip_accents
    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = bert_pipeline(lower_case, strip)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        # Rarer characters become [UNK]; without a limit they could fill the vocabulary.
        limit_alphabet=max(vocab_size // 4, 64),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    library.train_from_iterator(lines, trainer)
    ids = library.get_vocab()
    return WordPieceTokenizer(
        sorted(ids, key=ids.__getitem__), lower_case=lower_case, strip_accents=strip
    )


def _train_sentencepiece(
    lines: Iterator[str], kind: str, vocab_size: int, lower_case: bool
) -> SentencePieceTokenizer:
    model = io.BytesIO()
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            normalization_rule_name=sentencepiece_normalization(lower_case),
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
            # 0.9995 of the characters: bytes stand in for the rest.
            character_coverage=0.9995,
            train_extremely_large_corpus=kind == "unigram",
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"SentencePiece cannot train {vocab_size} pieces: {_reason(error)}"
        ) from error
    return SentencePieceTokenizer(model.getvalue(), kind=kind, lower_case=lower_case)


def _reason(error: Exception) -> str:
    """SentencePiece's own words, less its source line."""
    text = re.sub(r"^.*?\]\s*", "", str(error).strip(), count=1).strip()
    return (text or str(error)).splitlines()[0]
