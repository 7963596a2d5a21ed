"""SentencePiece and WordPiece behind one small protocol.

WordPiece is BERT's: the same normalisation, the same cut into words, the same ids for the same
vocabulary. SentencePiece (unigram or BPE) needs no spaces between words and falls back to bytes,
so that no text is unknown to it.

Text never becomes a special token: a literal "[MASK]" in it is cut like any other characters,
since in pretraining text it is a quotation and not a mask. Special ids are placed by whoever
builds a row. Line breaks count as spaces.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from electra_jax.errors import UsageError

FORMAT_VERSION = 1
RECORD_NAME = "electra_jax_tokenizer.json"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KINDS = ("unigram", "bpe", "wordpiece")
_CONTENT_NAMES = {
    "wordpiece": "vocab.txt",
    "unigram": "sentencepiece.model",
    "bpe": "sentencepiece.model",
}

# Long text is cut into segments, at a space where there is one. Words lie within a segment, so
# ids stay the same, while memory stays flat, threads share a long document, and unigram's sums
# of 32-bit scores stay exact. Only what every tokenizer takes for a space is one here.
_SEGMENT = re.compile(r"(?s).{1,1000}(?![^ \n])|.{1,1000}")
_SEGMENTS_AT_ONCE = 1024
_SURROGATES = re.compile("[\ud800-\udfff]")

# A SentencePiece piece that starts with one of these starts a word of its own although no space
# is before it: punctuation and symbols, and scripts written without spaces (Thai, Lao, Myanmar,
# Khmer, kana, Han).
_STARTS_WORD = re.compile(
    r"[^\w\s]|_|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff]"
)
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


class Tokenizer(Protocol):
    """Text to ids and back.

    Attributes:
      kind: "wordpiece", "unigram" or "bpe".
      vocab_size: number of ids.
      lower_case: whether text is lower-cased first.
      strip_accents: whether accents are taken off first.
      identity: a hash, in hexadecimal, of everything that determines ids.
    """

    kind: str
    vocab_size: int
    lower_case: bool
    strip_accents: bool
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    identity: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; [] for a text of nothing but space."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; padding, [CLS], [SEP] and [MASK] are left out."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's entry for each id."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """For each id of `encode([text])`, the characters [start, end) of text it stands for.

        A character spelt in bytes belongs to the last of them; the others are empty.
        """

    def continuation(self) -> np.ndarray:
        """Which pieces continue a word begun by the piece before: bool [vocab_size].

        In SentencePiece, a piece that starts with a space, with punctuation, or in a script
        written without spaces begins a word; every other continues one.
        """

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes what `load_tokenizer` reads into `directory`, which is made if need be."""


class WordPieceTokenizer:
    """BERT's tokenizer over a vocabulary; follows `Tokenizer`.

    Attributes:
      library: the same as an object of the tokenizers library.
    """

    kind = "wordpiece"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        lower_case: bool = True,
        strip_accents: bool | None = None,
    ) -> None:
        """Takes pieces in the order of their ids.

        By default accents are stripped when text is lower-cased, as in BERT.

        Raises:
          UsageError: a piece occurs twice, or a special token is missing.
        """
        ids = {piece: id for id, piece in enumerate(vocabulary)}
        if len(ids) < len(vocabulary):
            piece, id = next((p, i) for i, p in enumerate(vocabulary) if ids[p] != i)
            raise UsageError(
                f"piece {piece!r} occurs twice: in lines {id + 1} and {ids[piece] + 1}"
            )
        missing = [token for token in SPECIAL_TOKENS if token not in ids]
        if missing:
            raise UsageError(f"no {', '.join(missing)} in the vocabulary of {len(ids)} pieces")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in SPECIAL_TOKENS
        )
        self.vocab_size = len(ids)
        self.lower_case = lower_case
        self.strip_accents = lower_case if strip_accents is None else strip_accents
        self._vocabulary = list(vocabulary)
        # Special tokens are not registered, so the library splits them when they are in text.
        self.library = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        self.library.normalizer, self.library.pre_tokenizer = bert_pipeline(
            self.lower_case, self.strip_accents
        )
        # Its clean-up would also turn "do not" into "don't".
        self.library.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        self.identity = _identity(self._settings(), self._content())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return _encode_segments(texts, self._encode_batch)

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(_without_specials(self, ids), skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self._vocabulary[id] for id in ids]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [
            (base + start, base + end)
            for base, segment in segments(text)
            for start, end in self.library.encode(segment, add_special_tokens=False).offsets
        ]

    def continuation(self) -> np.ndarray:
        return np.array([piece.startswith("##") for piece in self._vocabulary])

    def save(self, directory: str | os.PathLike[str]) -> None:
        _save(self, directory, self._settings(), self._content())

    def _encode_batch(self, segments: list[str]) -> list[list[int]]:
        encodings = self.library.encode_batch_fast(segments, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "normalization": "bert",
        }

    def _content(self) -> bytes:
        return "".join(f"{piece}\n" for piece in self._vocabulary).encode("utf-8")


class SentencePieceTokenizer:
    """A SentencePiece model; follows `Tokenizer`.

    Attributes:
      library: the same as a sentencepiece.SentencePieceProcessor.
    """

    strip_accents = False

    def __init__(self, model: bytes, *, kind: str, lower_case: bool) -> None:
        """Takes a serialised model made by `train_tokenizer`.

        Raises:
          UsageError: not a model, or a special token is not among its control symbols.
        """
        try:
            self.library = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, ValueError) as error:
            raise UsageError("not a SentencePiece model, or a damaged one") from error
        self.kind = kind
        self.lower_case = lower_case
        self.vocab_size = self.library.get_piece_size()
        ids = [self.library.piece_to_id(token) for token in SPECIAL_TOKENS]
        for token, id in zip(SPECIAL_TOKENS, ids, strict=True):
            # What is not a control symbol could be produced by text.
            is_special = self.library.is_control(id) or self.library.is_unknown(id)
            if not is_special or self.library.id_to_piece(id) != token:
                raise UsageError(f"no {token} among the control symbols of the SentencePiece model")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        self._model = model
        self.identity = _identity(self._settings(), model)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return _encode_segments(
            texts, lambda segments: self.library.encode(segments, out_type=int, num_threads=1)
        )

    def decode(self, ids: Sequence[int]) -> str:
        return self.library.decode(_without_specials(self, ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return [self.library.id_to_piece(int(id)) for id in ids]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        spans = []
        for base, segment in segments(text):
            for start, end in self.library.encode_as_offset_mapping(segment)["offsets"]:
                # The space that a piece begins with is not shown as a part of it.
                space = end - start - len(segment[start:end].lstrip())
                spans.append((base + start + space, base + end))
        return spans

    def continuation(self) -> np.ndarray:
        continues = np.zeros(self.vocab_size, bool)
        for id, piece in enumerate(self.pieces(range(self.vocab_size))):
            if self.library.is_control(id) or self.library.is_unknown(id):
                continue
            is_byte = _BYTE_PIECE.fullmatch(piece) is not None
            continues[id] = is_byte or not (piece[0] == "▁" or _STARTS_WORD.match(piece))
        return continues

    def save(self, directory: str | os.PathLike[str]) -> None:
        _save(self, directory, self._settings(), self._model)

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "normalization": sentencepiece_normalization(self.lower_case),
        }


def load_tokenizer(
    path: str | os.PathLike[str], *, lower_case: bool | None = None
) -> WordPieceTokenizer | SentencePieceTokenizer:
    """Opens a saved tokenizer, a BERT vocab.txt, or a directory that holds one.

    A Hugging Face directory with the tokenizer.json of a WordPiece model is taken too. Of a
    vocabulary without a record of its own, `lower_case` tells whether it is for lower-cased
    text; by default tokenizer_config.json beside it tells, or else it is if no piece holds a
    capital letter.

    Raises:
      UsageError: nothing there, no tokenizer in it, a damaged file, a newer format, or
        `lower_case` against the record.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"no tokenizer at {path}: there is no such file or directory")
    try:
        if path.is_file():
            return _load_vocabulary(path, lower_case)
        if (path / RECORD_NAME).exists():
            return _load_saved(path, lower_case)
        if (path / "vocab.txt").exists():
            return _load_vocabulary(path / "vocab.txt", lower_case)
        if (path / "tokenizer.json").exists():
            return _load_hugging_face(path / "tokenizer.json", lower_case)
    except UsageError as error:
        raise UsageError(f"tokenizer at {path}: {error}") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"tokenizer at {path} cannot be read: {error}") from error
    raise UsageError(
        f"no tokenizer in {path}: it holds neither {RECORD_NAME} nor vocab.txt;"
        " make one with `electra-jax tokenizer`"
    )


def _load_saved(path: Path, lower_case: bool | None) -> WordPieceTokenizer | SentencePieceTokenizer:
    record = json.loads((path / RECORD_NAME).read_text("utf-8"))
    if record["format_version"] > FORMAT_VERSION:
        raise UsageError(
            f"its format is {record['format_version']}, newer than {FORMAT_VERSION}, the newest"
            " that this version reads; upgrade electra-jax"
        )
    kind = record["kind"]
    check_kind(kind)
    if lower_case not in (None, record["lower_case"]):
        raise UsageError(f"it was made with lower_case={record['lower_case']}; train another one")
    content = (path / _CONTENT_NAMES[kind]).read_bytes()
    tokenizer: WordPieceTokenizer | SentencePieceTokenizer
    if kind == "wordpiece":
        tokenizer = WordPieceTokenizer(
            content.decode("utf-8").removesuffix("\n").split("\n"),
            lower_case=record["lower_case"],
            strip_accents=record["strip_accents"],
        )
    else:
        tokenizer = SentencePieceTokenizer(content, kind=kind, lower_case=record["lower_case"])
    if tokenizer.identity != record["identity"]:
        raise UsageError(
            "its files were altered since it was saved; train it again or copy it anew"
        )
    return tokenizer


def _load_vocabulary(file: Path, lower_case: bool | None) -> WordPieceTokenizer:
    # Not splitlines: some pieces are characters that it takes for line ends.
    text = file.read_text("utf-8").removesuffix("\n")
    vocabulary = [line.removesuffix("\r") for line in text.split("\n")]
    config_file = file.parent / "tokenizer_config.json"
    config = json.loads(config_file.read_text("utf-8")) if config_file.exists() else {}
    if lower_case is None:
        lower_case = config.get("do_lower_case")
    if lower_case is None:
        pieces = (piece for piece in vocabulary if not piece.startswith("["))
        lower_case = not any(re.search("[A-Z]", piece) for piece in pieces)
    return WordPieceTokenizer(
        vocabulary, lower_case=lower_case, strip_accents=config.get("strip_accents")
    )


def _load_hugging_face(file: Path, lower_case: bool | None) -> WordPieceTokenizer:
    state = json.loads(file.read_text("utf-8"))
    normalizer = state["normalizer"] or {}
    if state["model"].get("type") != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        raise UsageError("its tokenizer.json is not a BERT WordPiece tokenizer")
    ids = state["model"]["vocab"]
    vocabulary = sorted(ids, key=ids.__getitem__)
    if sorted(ids.values()) != list(range(len(ids))):
        raise UsageError("its ids have gaps")
    return WordPieceTokenizer(
        vocabulary,
        lower_case=normalizer["lowercase"] if lower_case is None else lower_case,
        strip_accents=normalizer["strip_accents"],
    )


def _save(
    tokenizer: Tokenizer,
    directory: str | os.PathLike[str],
    settings: dict[str, Any],
    content: bytes,
) -> None:
    directory = Path(directory)
    record = {
        "format_version": FORMAT_VERSION,
        **settings,
        "vocab_size": tokenizer.vocab_size,
        "identity": tokenizer.identity,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _CONTENT_NAMES[tokenizer.kind]).write_bytes(content)
        (directory / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"cannot save a tokenizer in {directory}: {error.strerror}") from error


def _identity(settings: dict[str, Any], content: bytes) -> str:
    return hashlib.sha256(
        json.dumps(settings, sort_keys=True).encode() + b"\0" + content
    ).hexdigest()


def bert_pipeline(
    lower_case: bool, strip_accents: bool
) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    """BERT's normalisation and its cut into words."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=strip_accents,
        lowercase=lower_case,
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def sentencepiece_normalization(lower_case: bool) -> str:
    """SentencePiece's name for NFKC, with or without case folding."""
    return "nmt_nfkc_cf" if lower_case else "nmt_nfkc"


def check_kind(kind: str) -> None:
    """Refuses what is not in `KINDS`, with the nearest that is."""
    if kind not in KINDS:
        nearest = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0)[0]
        raise UsageError(
            f"unknown kind of tokenizer {kind!r}: did you mean {nearest}? ({', '.join(KINDS)})"
        )


def segments(text: str) -> Iterator[tuple[int, str]]:
    """Yields position and text of each segment."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Halves of surrogate pairs come from broken JSON; neither library takes them.
        text = _SURROGATES.sub("\ufffd", text)
    for match in _SEGMENT.finditer(text):
        yield match.start(), match.group()


def _encode_segments(texts: Sequence[str], encode_batch: Any) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in texts]
    owners: list[int] = []
    batch: list[str] = []

    def flush() -> None:
        for owner, segment_ids in zip(owners, encode_batch(batch), strict=True):
            ids[owner] += segment_ids
        owners.clear()
        batch.clear()

    for owner, text in enumerate(texts):
        for _, segment in segments(text):
            owners.append(owner)
            batch.append(segment)
            if len(batch) == _SEGMENTS_AT_ONCE:
                flush()
    if batch:
        flush()
    return ids


def _without_specials(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    left_out = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    return [int(id) for id in ids if int(id) not in left_out]
