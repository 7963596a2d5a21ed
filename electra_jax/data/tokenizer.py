"""Text to ids and back: any tokenizer of the tokenizers library behind one class.

The library normalises, cuts and looks up, so ids are those that it gives everywhere else. What is
added here is the roles of the special tokens, and that text never becomes one of them: a literal
"[MASK]" in it is cut like any other characters, since in pretraining text it is a quotation and
not a mask. Special ids are placed by whoever builds a row.
"""

import array
import bisect
import hashlib
import itertools
import json
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tokenizers

from electra_jax.data import tokenizer_files, tokenizer_state
from electra_jax.data.sentencepiece_model import sentencepiece_state
from electra_jax.data.tokenizer_record import (
    FORMAT_VERSION,
    RECORD_NAME,
    check_unchanged,
    make_record,
    read_record,
)
from electra_jax.data.tokenizer_state import ROLES, SPECIAL_TOKENS, bert_settings, bert_state
from electra_jax.data.unigram_engine import UnigramEngine, can_encode
from electra_jax.errors import UsageError
from electra_jax.system.atomic_files import atomic_folder, atomic_path, write_json
from electra_jax.system.json_files import parse_object, read_bytes

KINDS = ("unigram", "bpe", "wordpiece")
_SENTENCEPIECE_MODEL = "sentencepiece.model"  # of version 0.1
UNENCODABLE = "the tokenizer has no ids for a text"
_SURROGATES = re.compile("[\ud800-\udfff]")
# Of version 0.1's SentencePiece: what only every tokenizer takes for a space is one.
_SEGMENT = re.compile(r"(?s).{1,1000}(?![^ \n])|.{1000}[^ \n]*")
# A unit of text: what lies between two spaces of `tokenizer_state.separators`. Equal units have
# equal ids, so the library sees each of them once.
_UNITS_KEPT = 2**18
_LONGEST_KEPT = 64  # characters


class Tokenizer:
    """A tokenizer of the tokenizers library with roles for its special tokens.

    Attributes:
      library: the library's object; of text that spells a special token it makes pieces.
      kind: its model: "wordpiece", "unigram", "bpe" or "wordlevel".
      vocab_size: number of ids.
      lower_case: whether text is lower-cased first.
      strip_accents: whether accents are taken off first.
      pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens; unk_id is mask_id for a
        vocabulary that knows every text.
      identity: a hash, in hexadecimal, of everything that determines ids.
    """

    def __init__(self, state: Mapping[str, Any], roles: Mapping[str, str]) -> None:
        """Takes the content of a tokenizer.json, and the token of each role.

        Raises:
          UsageError: the library cannot read it, or a role's token is missing or used twice.
        """
        self._state = dict(state)
        self.roles = dict(roles)
        self.kind = state["model"]["type"].lower()
        ids = tokenizer_state.library_of(state).get_vocab(with_added_tokens=True)
        tokenizer_state.check_ids(ids)
        # Ids between added tokens may have no piece.
        self._pieces = [""] * (max(ids.values(), default=-1) + 1)
        for piece, id in ids.items():
            self._pieces[id] = piece
        self.vocab_size = len(self._pieces)
        self._take_roles(ids)
        self.library = tokenizer_state.library_of(tokenizer_state.isolated(state, self.roles))
        self.library.encode_special_tokens = True
        self.lower_case, self.strip_accents = tokenizer_state.normalization(state)
        self.identity = self._identity()
        self._units = tokenizer_state.separators(self.library, state, self.roles)
        self._engine = (
            UnigramEngine(self.library, state, self.roles)
            if can_encode(state, self.roles)
            else None
        )
        self._known_units: dict[str, bytes] = {}
        self._character_is_unknown: dict[str, bool] = {}

    def _take_roles(self, ids: Mapping[str, int]) -> None:
        if missing := [token for token in self.roles.values() if token not in ids]:
            raise UsageError(f"no {', '.join(missing)} in the vocabulary of {len(ids):,} pieces")
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[self.roles[role]] for role in ("pad", "cls", "sep", "mask")
        )
        if self.mask_id in (self.pad_id, self.cls_id, self.sep_id):
            raise UsageError(f"{self.roles['mask']} is the mask and another special token, too")
        self.unk_id = ids[self.roles["unk"]] if "unk" in self.roles else self.mask_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.kind}, {self.vocab_size:,} pieces>"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [ids.tolist() for ids in self.encode_arrays(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The same as arrays, uint32 [tokens]."""
        texts = [_without_surrogates(text) for text in texts]
        if self._engine:
            return self._engine.encode(texts)
        if self._units is None:
            return [np.array(ids, np.uint32) for ids in self._encode_batch(texts)]
        known = self._known_units
        parts = [self._units.split(text) for text in texts]
        # A unit begins with what divides it from the one before; of a text's first, with "\0".
        units = [["\0" + p[0], *map(operator.add, p[1::2], p[2::2])] for p in parts]
        # In an order of their own: what the library does may not depend on a hash.
        new = sorted(set(itertools.chain(*units)).difference(known))
        # As bytes, ids lie together in memory.
        known.update(zip(new, map(_pack, self._encode_units(new)), strict=True))
        arrays = [np.frombuffer(b"".join(map(known.__getitem__, u)), np.uint32) for u in units]
        full = len(known) > _UNITS_KEPT
        for unit in new:
            if full or len(unit) > _LONGEST_KEPT:
                del known[unit]
        return arrays

    def _encode_units(self, units: Sequence[str]) -> list[list[int]]:
        """Ids of units; punctuation that ends a word is encoded behind a word."""
        before = len(self._encode_batch(["a"])[0])
        texts = [u[1:] if u[0] == "\0" else u if u[0] in " \n" else f"a{u}" for u in units]
        return [
            ids if unit[0] in "\0 \n" else ids[before:]
            for unit, ids in zip(units, self._encode_batch(texts), strict=True)
        ]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of each word of a sentence, as they are where spaces stand between the words."""
        spaces = [end - 1 for end in itertools.accumulate(len(word) + 1 for word in words[:-1])]
        text = _without_surrogates(" ".join(words))
        encoding = self._encode_one(text)
        ids: list[list[int]] = [[] for _ in words]
        for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            # A piece begins with the space before its word, or is that space alone.
            last = max(start, end - 1)
            ids[bisect.bisect_right(spaces, last)].append(id)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; padding, [CLS], [SEP] and [MASK] are left out."""
        left_out = {self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        kept = [int(id) for id in ids if int(id) not in left_out]
        text = self.library.decode(kept, skip_special_tokens=False)
        return text.replace(tokenizer_state.HIDDEN, "")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's entry for each id."""
        return [self._pieces[int(id)] for id in ids]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """For each id of `encode([text])`, the characters [start, end) of text it stands for.

        The space before a word is no part of it. Pieces that spell one character in bytes stand
        each for all of it.
        """
        text = _without_surrogates(text)
        encoding = self._encode_one(text)
        spans = []
        for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if (
                self._pieces[id] == "▁"
            ):  # put before the text, the library has it stand for a letter
                end = end if text[start:end].isspace() else start
            spans.append((end - len(text[start:end].lstrip()), end))
        return spans

    def continuation(self) -> np.ndarray:
        """Which pieces continue a word begun by the piece before: bool [vocab_size].

        WordPiece marks them. In other vocabularies a piece that starts with a space, with
        punctuation, or in a script written without spaces begins a word; every other continues
        one.
        """
        continues = tokenizer_state.continuation(self._state, self._pieces)
        continues[[self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id]] = False
        return continues

    @property
    def knows_every_text(self) -> bool:
        """Whether there is no unknown token, so that none can be in what text becomes."""
        return self.unk_id == self.mask_id

    def unknown_characters(self, text: str) -> set[str]:
        """Those of a text's characters that have no piece, neither alone nor within a word."""
        new = set(text).difference(self._character_is_unknown)
        [[*letter]] = self._encode_batch(["a"])
        for character in new:
            alone, within = self._encode_batch([character, f"a{character}"])
            # A letter that is unknown itself tells nothing about what is within a word.
            known = self.unk_id not in within and self.unk_id not in letter
            self._character_is_unknown[character] = self.unk_id in alone and not known
        return {character for character in set(text) if self._character_is_unknown[character]}

    def state(self) -> dict[str, Any]:
        """The content of a tokenizer.json with the same ids."""
        return dict(self._state)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes what `load_tokenizer` reads into `directory`, which is made if need be."""
        record = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "roles": self.roles,
        }
        content = json.dumps(self._state, ensure_ascii=False).encode("utf-8")
        self._save(Path(directory), record, "tokenizer.json", content)

    def _save(self, directory: Path, record: dict[str, Any], name: str, content: bytes) -> None:
        record = make_record({**record, "vocab_size": self.vocab_size}, self.identity, content)
        with atomic_folder(directory, RECORD_NAME, update=True) as folder:
            with atomic_path(folder / name) as partial:
                partial.write_bytes(content)
            write_json(folder / RECORD_NAME, record)  # last: without it the rest counts for nothing

    def _identity(self) -> str:
        content = {name: self._state.get(name) for name in ("normalizer", "pre_tokenizer", "model")}
        # Exports register the special tokens, too, which changes no ids here.
        content["added_tokens"] = [
            {name: value for name, value in token.items() if name != "special"}
            for token in self._state.get("added_tokens") or []
            if token["content"] not in self.roles.values()
        ]
        return _hash({"roles": self.roles}, json.dumps(content, sort_keys=True).encode())

    def _encode_one(self, text: str) -> tokenizers.Encoding:
        with tokenizer_state.library_errors(UNENCODABLE):
            return self.library.encode(text, add_special_tokens=False)

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        with tokenizer_state.library_errors(UNENCODABLE):
            encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer over a vocabulary: a folder of it holds a vocab.txt."""

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
        self._vocabulary = list(vocabulary)
        strip = lower_case if strip_accents is None else strip_accents
        state = bert_state(self._vocabulary, lower_case=lower_case, strip_accents=strip)
        super().__init__(state, dict(zip(ROLES, SPECIAL_TOKENS, strict=True)))

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        return self.encode(words)

    def save(self, directory: str | os.PathLike[str]) -> None:
        record = {"format_version": 1, **self._settings()}
        self._save(Path(directory), record, "vocab.txt", self._content())

    def _settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lower_case": self.lower_case,
            "strip_accents": self.strip_accents,
            "normalization": "bert",
        }

    def _content(self) -> bytes:
        return "".join(f"{piece}\n" for piece in self._vocabulary).encode("utf-8")

    def _identity(self) -> str:
        return _hash(self._settings(), self._content())


class SentencePieceTokenizer(Tokenizer):
    """A folder of version 0.1, with the ids that the SentencePiece library gives.

    Its normalisation of text with combining characters is not quite any of the tokenizers
    library's, which exports have.
    """

    def __init__(self, model: bytes, *, kind: str, lower_case: bool) -> None:
        """Takes a serialised model.

        Raises:
          UsageError: not a model, or a special token is not among its control symbols.
        """
        roles = dict(zip(ROLES, SPECIAL_TOKENS, strict=True))
        self._settings = {
            "kind": kind,
            "lower_case": lower_case,
            "strip_accents": False,
            "normalization": "nmt_nfkc_cf" if lower_case else "nmt_nfkc",
        }
        self._model = model
        super().__init__(sentencepiece_state(model), roles)
        self.lower_case, self.strip_accents = lower_case, False
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        # Ids of version 0.1: a text is cut into segments, at a space, as unigram's sums of
        # 32-bit scores are not those of the whole.
        segments = [_SEGMENT.findall(_without_surrogates(text)) for text in texts]
        encoded = iter(self._encode_batch(list(itertools.chain(*segments))))
        return [
            np.array([*itertools.chain(*itertools.islice(encoded, len(s)))], np.uint32)
            for s in segments
        ]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        return self.encode(words)

    def decode(self, ids: Sequence[int]) -> str:
        left_out = {self.pad_id, self.cls_id, self.sep_id, self.mask_id}
        return self._processor.decode([int(id) for id in ids if int(id) not in left_out])

    def offsets(self, text: str) -> list[tuple[int, int]]:
        spans, base = [], 0
        for segment in _SEGMENT.findall(_without_surrogates(text)):
            for start, end in self._processor.encode_as_offset_mapping(segment)["offsets"]:
                spans.append((base + end - len(segment[start:end].lstrip()), base + end))
            base += len(segment)
        return spans

    def save(self, directory: str | os.PathLike[str]) -> None:
        record = {"format_version": 1, **self._settings}
        self._save(Path(directory), record, _SENTENCEPIECE_MODEL, self._model)

    def _identity(self) -> str:
        return _hash(self._settings, self._model)

    def _encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), out_type=int, num_threads=1)


def load_tokenizer(
    path: str | os.PathLike[str],
    *,
    lower_case: bool | None = None,
    special_tokens: Mapping[str, str] | Sequence[str] = (),
) -> Tokenizer:
    """Opens whatever holds a tokenizer.

    Args:
      path: a folder of `electra-jax tokenizer`, a run directory or a token store, a Hugging Face
        directory, or a file: tokenizer.json, a BERT vocab.txt, a SentencePiece model.
      lower_case: of a vocab.txt, whether it is for lower-cased text; by default
        tokenizer_config.json beside it tells, or else it is if no piece holds a capital letter.
      special_tokens: tokens by role ("pad", "unk", "cls", "sep", "mask"), or "ROLE=TOKEN" each,
        where the files beside the tokenizer do not tell; a new one is added to the vocabulary.

    Raises:
      UsageError: nothing there, no tokenizer in it, a damaged file, a newer format, one that
        needs code of its own, a role that no token has, or `lower_case` against the record.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"no tokenizer at {path}: there is no such file or directory")
    try:
        with tokenizer_state.library_errors("it cannot be read"):
            return _load(path, lower_case, special_tokens)
    except UsageError as error:
        if str(error).startswith("no tokenizer in"):
            raise
        raise UsageError(f"tokenizer at {path}: {error}") from error


def _load(
    path: Path, lower_case: bool | None, special_tokens: Mapping[str, str] | Sequence[str]
) -> Tokenizer:
    found = tokenizer_files.find(path, RECORD_NAME)
    if found is None:
        raise UsageError(
            f"no tokenizer in {path}: it holds neither {RECORD_NAME} nor tokenizer.json,"
            " vocab.txt or a SentencePiece model; make one with `electra-jax tokenizer`"
        )
    if found.name == RECORD_NAME:
        if special_tokens:
            raise UsageError("its special tokens are recorded and cannot be changed")
        return _load_saved(found.parent, lower_case)
    return _make(*tokenizer_files.read(found, lower_case, special_tokens))


def _make(state: Mapping[str, Any], roles: Mapping[str, str]) -> Tokenizer:
    """A tokenizer of its own class where it is BERT's."""
    settings = bert_settings(state, roles)
    return WordPieceTokenizer(**settings) if settings else Tokenizer(state, roles)


def _load_saved(path: Path, lower_case: bool | None) -> Tokenizer:
    record = read_record(path)
    kind, lower = record["kind"], record["lower_case"]
    if lower_case not in (None, lower):
        raise UsageError(f"it was made with lower_case={lower}; train another one")
    tokenizer: Tokenizer
    if record["format_version"] > 1:
        content = read_bytes(path / "tokenizer.json")
        tokenizer = Tokenizer(parse_object(content), record["roles"])
    elif kind == "wordpiece":
        content = read_bytes(path / "vocab.txt")
        pieces = content.decode("utf-8").removesuffix("\n").split("\n")
        accents = record["strip_accents"]
        tokenizer = WordPieceTokenizer(pieces, lower_case=lower, strip_accents=accents)
    else:
        content = read_bytes(path / _SENTENCEPIECE_MODEL)
        tokenizer = SentencePieceTokenizer(content, kind=kind, lower_case=lower)
    check_unchanged(record, tokenizer.identity, content)
    return tokenizer


def _hash(settings: Mapping[str, Any], content: bytes) -> str:
    return hashlib.sha256(
        json.dumps(settings, sort_keys=True).encode() + b"\0" + content
    ).hexdigest()


def _pack(ids: Sequence[int]) -> bytes:
    return array.array("I", ids).tobytes()


def _without_surrogates(text: str) -> str:
    """Halves of surrogate pairs come from broken JSON; no library takes them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text
