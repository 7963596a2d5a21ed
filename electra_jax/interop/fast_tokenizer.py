"""Our tokenizers as the `tokenizer.json` that the transformers library loads.

Its ids are ours on any text, but that special tokens in the text become special tokens
there, as users of that library expect.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from electra_jax.data.tokenizer import (
    SPECIAL_TOKENS,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)


def save_fast_tokenizer(
    tokenizer: Tokenizer, folder: Path, max_tokens: int, types: bool = False
) -> None:
    """Writes tokenizer.json and tokenizer_config.json, and our own record beside them.

    Args:
      tokenizer: which.
      folder: is there.
      max_tokens: that a row of the model takes.
      types: whether its model tells the two texts of a pair apart by token types.
    """
    tokenizer.save(folder)  # so that importing needs no guess
    fast = fast_tokenizer(tokenizer)
    fast.save(str(folder / "tokenizer.json"))
    roles = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "do_lower_case": tokenizer.lower_case,
        "strip_accents": tokenizer.strip_accents,
        "clean_up_tokenization_spaces": False,
        "model_input_names": [
            "input_ids",
            *(["token_type_ids"] if types else []),
            "attention_mask",
        ],
        **roles,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(roles, indent=2) + "\n", "utf-8")


def fast_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer as an object of the tokenizers library, with [CLS] A [SEP] B [SEP]."""
    if isinstance(tokenizer, WordPieceTokenizer):
        fast = tokenizers.Tokenizer.from_str(tokenizer.library.to_str())
    else:
        assert isinstance(tokenizer, SentencePieceTokenizer)
        fast = _sentence_piece(tokenizer)
    fast.add_special_tokens(list(SPECIAL_TOKENS))
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokenizer.cls_id), ("[SEP]", tokenizer.sep_id)],
    )
    return fast


def _sentence_piece(tokenizer: SentencePieceTokenizer) -> tokenizers.Tokenizer:
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(tokenizer.library.serialized_model_proto())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    model: Any
    if tokenizer.kind == "unigram":
        model = models.Unigram(pieces, unk_id=tokenizer.unk_id, byte_fallback=True)
    else:
        ids = {piece: id for id, (piece, _) in enumerate(pieces)}
        model = models.BPE(
            ids, _merges(pieces, ids), unk_token="[UNK]", fuse_unk=True, byte_fallback=True
        )
    fast = tokenizers.Tokenizer(model)
    steps: list[Any] = []
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    fast.normalizer = normalizers.Sequence(steps)
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    fast.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    return fast


def _merges(pieces: list[tuple[str, float]], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, best first: all cuts of a piece in two."""
    merges = []
    for piece, _ in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [(a, b) for a, b in cuts if a in ids and b in ids]
        merges += sorted(known, key=lambda cut: (ids[cut[0]], ids[cut[1]]))
    scores = dict(pieces)
    return sorted(merges, key=lambda cut: -scores[cut[0] + cut[1]])
