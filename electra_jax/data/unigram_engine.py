"""The SentencePiece library as a faster engine of unigram tokenizers that are trained here.

Its ids are those of the tokenizers library: text is normalised by that library, and scores are
multiples of `GRID`, so that sums in 32 bits and in 64 are the same. Text that the two libraries
would read in two ways goes to the tokenizers library.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import normalizers

from electra_jax.data.tokenizer_state import CUT, steps

GRID = 1 / 256
_LONGEST = 1000  # characters, whose scores sum up exactly in 32 bits


def _pieces(most: int) -> re.Pattern[str]:
    """Matches up to so many characters, cut at a space over which nothing is joined."""
    return re.compile(rf"(?s).{{1,{most}}}(?:\Z|{CUT})|.+?(?:\Z|{CUT})")


_SEGMENT = _pieces(750)  # characters may become several
_PART = _pieces(150)  # of shorter ones more are ASCII, which is quick
# Spaces of other kinds, and pieces that stand for bytes, spelt out.
_UNUSUAL = re.compile(
    "[\0▁\t\n-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
_NORMALIZERS = {"Nmt", "NFKD", "StripAccents", "NFKC", "Lowercase"}
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6  # SentencePiece's numbers of its kinds of pieces
# What the normalisation does to ASCII, but for its case.
_ASCII = {
    **dict.fromkeys([*range(1, 9), 11, *range(14, 32), 127]),
    **dict.fromkeys(b"\t\n\f\r", " "),
}


class UnigramEngine:
    """Encodes as `library` does, where it can."""

    def __init__(
        self, library: tokenizers.Tokenizer, state: Mapping[str, Any], roles: Mapping[str, str]
    ) -> None:
        """Takes what `can_encode` accepts."""
        from sentencepiece import sentencepiece_model_pb2

        self._library = library
        names = [step["type"] for step in steps(state, "normalizer")]
        self._lower = "Lowercase" in names
        normalizer = normalizers.Sequence(
            [getattr(normalizers, name)() for name in names if name in _NORMALIZERS]
        )
        self._normalize = normalizer.normalize_str
        proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        unknown = state["model"]["unk_id"]
        for index, (piece, score) in enumerate(state["model"]["vocab"]):
            added = proto.pieces.add(piece=piece, score=score)
            if index == unknown:
                added.type = _UNKNOWN
            elif piece in roles.values():
                added.type = _CONTROL
            elif _BYTE_PIECE.fullmatch(piece):
                added.type = _BYTE
        spec = proto.trainer_spec
        spec.model_type, spec.byte_fallback, spec.unk_id = 1, True, unknown
        spec.bos_id = spec.eos_id = spec.pad_id = -1
        proto.normalizer_spec.name = "identity"
        self._processor = sentencepiece.SentencePieceProcessor(
            model_proto=proto.SerializeToString()
        )

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, uint32 [tokens]."""
        cut = [_SEGMENT.findall(text) for text in texts]
        segments = list(itertools.chain(*cut))
        normal = [self._normal(segment) for segment in segments]
        unusual = [
            index
            for index, text in enumerate(normal)
            if len(text) > _LONGEST or self._is_unusual(text)
        ]
        for index in unusual:
            normal[index] = ""
        ids = self._processor.encode_as_numpy(normal, num_threads=1)
        if unusual:
            encodings = self._library.encode_batch_fast(
                [segments[index] for index in unusual], add_special_tokens=False
            )
            for index, encoding in zip(unusual, encodings, strict=True):
                ids[index] = np.array(encoding.ids, np.int32)
        encoded = iter(ids)
        none = np.zeros(0, np.int32)
        return [
            np.concatenate([none, *itertools.islice(encoded, len(c))]).view(np.uint32) for c in cut
        ]

    @staticmethod
    def _is_unusual(text: str) -> bool:
        if "<0x" in text:
            return True
        return "\0" in text if text.isascii() else bool(_UNUSUAL.search(text))

    def _normal(self, text: str) -> str:
        if text.isascii():
            text = text.replace("\n", " ")
            if not text.isprintable():
                text = text.translate(_ASCII)
            return text.lower() if self._lower else text
        parts = _PART.findall(text)
        return self._normalize(text) if len(parts) < 2 else " ".join(map(self._normal, parts))


def can_encode(state: Mapping[str, Any], roles: Mapping[str, str]) -> bool:
    """Whether a tokenizer is one that `train_tokenizer` makes, in all that matters here."""
    model, word = state["model"], state.get("pre_tokenizer") or {}
    names = [step["type"] for step in steps(state, "normalizer")]
    return (
        model["type"] == "Unigram"
        and bool(model.get("byte_fallback"))
        and model.get("unk_id") is not None
        and names[-2:] == ["Strip", "Replace"]
        and {"Nmt", "NFKC"} <= set(names[:-2]) <= _NORMALIZERS
        and word.get("type") == "Metaspace"
        and word.get("prepend_scheme") == "always"
        and bool(word.get("split"))
        and all(token["content"] in roles.values() for token in state.get("added_tokens") or [])
        and all((score / GRID).is_integer() for _, score in model["vocab"])
        and not any("▁" in piece[1:] for piece, _ in model["vocab"])
    )
