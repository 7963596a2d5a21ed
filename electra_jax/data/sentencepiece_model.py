"""SentencePiece's models as the state of a tokenizers library's object."""

import json
from collections.abc import Sequence
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from electra_jax.data.tokenizer_state import library_errors
from electra_jax.errors import UsageError

UNIGRAM, BPE = 1, 2  # SentencePiece's numbers of its models
LONGEST_PIECE = 4096  # characters
CONTROL, USER_DEFINED = 3, 4  # and of its kinds of pieces


def read_model(content: bytes) -> Any:
    """The fields of a serialised model.

    Raises:
      UsageError: it is damaged or no model, or of a kind without a counterpart.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        sentencepiece.SentencePieceProcessor(model_proto=content)
        proto.ParseFromString(content)
    except (RuntimeError, ValueError, DecodeError) as error:
        raise UsageError("not a SentencePiece model, or a damaged one") from error
    if proto.trainer_spec.model_type not in (UNIGRAM, BPE):
        raise UsageError("a SentencePiece model of words or characters; unigram or bpe are read")
    longest = max((len(piece.piece) for piece in proto.pieces), default=0)
    if longest > LONGEST_PIECE:  # each is cut at all places
        raise UsageError(f"a SentencePiece model with a piece of {longest:,} characters")
    return proto


def sentencepiece_state(content: bytes) -> dict[str, Any]:
    """The content of a tokenizer.json for a serialised SentencePiece model.

    The library's own reading of SentencePiece's rules does not compose characters (Korean and
    kana as macOS writes file names), so that NFKC goes before it.

    Raises:
      UsageError: see `read_model`.
    """
    proto = read_model(content)
    with library_errors("a damaged SentencePiece model"):
        return _state(proto)


def _state(proto: Any) -> dict[str, Any]:
    steps: list[normalizers.Normalizer] = []
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        if "nfkc" in proto.normalizer_spec.name:
            steps.append(normalizers.NFKC())
        steps.append(normalizers.Precompiled(charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += collapse_spaces()
    state = model_state(proto, steps, proto.normalizer_spec.add_dummy_prefix)
    added = [
        (index, piece.piece, piece.type == CONTROL)
        for index, piece in enumerate(proto.pieces)
        if piece.type in (CONTROL, USER_DEFINED)
    ]
    state["added_tokens"] = [
        {
            "id": index, "content": piece, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special,
        }
        for index, piece, special in added
    ]  # fmt: skip
    return state


def collapse_spaces() -> list[normalizers.Normalizer]:
    """What SentencePiece does to spaces before it cuts at them."""
    return [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]


def model_state(
    proto: Any, steps: Sequence[normalizers.Normalizer], prefix: bool = True
) -> dict[str, Any]:
    """A state with the pieces of a model, and the given normalisation.

    Args:
      prefix: whether a text begins as if a space were before it.
    """
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    unknown = proto.trainer_spec.unk_id
    fallback = proto.trainer_spec.byte_fallback
    model: Any
    if proto.trainer_spec.model_type == UNIGRAM:
        model = models.Unigram(pieces, unk_id=unknown, byte_fallback=fallback)
    else:
        ids = {piece: index for index, (piece, _) in enumerate(pieces)}
        model = models.BPE(
            ids, _merges(pieces, ids), unk_token=pieces[unknown][0], fuse_unk=True,
            byte_fallback=fallback,
        )  # fmt: skip
    library = tokenizers.Tokenizer(model)
    library.normalizer = normalizers.Sequence(list(steps))
    scheme = "always" if prefix else "never"
    library.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)
    library.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Metaspace(replacement="▁", prepend_scheme=scheme),
        ]
    )
    return json.loads(library.to_str())


def _merges(pieces: Sequence[tuple[str, float]], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, best first: all cuts of a piece in two."""
    merges = []
    for piece, _ in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(a, b) for a, b in cuts if a in ids and b in ids]
        merges += sorted(known, key=lambda cut: (ids[cut[0]], ids[cut[1]]))
    scores = dict(pieces)
    return sorted(merges, key=lambda cut: -scores[cut[0] + cut[1]])
