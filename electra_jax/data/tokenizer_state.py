"""What a tokenizer.json says: how its tokenizer treats text, and states that are made here."""

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from electra_jax.errors import UsageError
from electra_jax.system.json_files import short_reason

ROLES = ("pad", "unk", "cls", "sep", "mask")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MOST_GAPS = 2**16  # ids without a piece, beside as many as there are pieces
HIDDEN = "\ufdd0\ufdd1"  # noncharacters, before the name of a piece that no text may spell

# A piece that starts with one of these starts a word of its own although no space is before it:
# punctuation and symbols, and scripts written without spaces (Thai, Lao, Myanmar, Khmer, kana,
# Han).
_STARTS_WORD = re.compile(
    r"\s|[^\w\s]|_|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")

# What looks at no more of a text than stands between two spaces.
_LOCAL_NORMALIZERS = {
    "BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Strip",
    "Precompiled", "Replace",
}  # fmt: skip
_LOCAL_PRE_TOKENIZERS = {
    "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace", "Split",
    "Digits", "Punctuation", "UnicodeScripts",
}  # fmt: skip
_PROBES = ("ab cd ef", "Ab, (Cd) 12 3 x9", "x. y) z! ü é ж 東 the end", "it's \"so\" 'no 're")
ENDS = ",.;:!?)\"'"  # of words, none of which means something in a set of characters
# A space is no place to cut after a letter that Unicode joins to what follows, nor before one
# that it joins to what precedes.
_JOINS_NEXT = (
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3"
    "\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02"
)
_JOINS_LAST = "\uff9e\uff9f\u0e33\u0eb3"
# Where text is cut before a space.
CUT = rf"(?= [!-~\w])(?<=[!-~\w])(?<![{_JOINS_NEXT}])(?! [{_JOINS_LAST}])"


@contextlib.contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Explains what the tokenizers library raises: plain exceptions, and Rust's panics.

    Raises:
      UsageError: `what`, and the library's reason.
    """
    try:
        yield
    except UsageError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # an interrupt
        raise UsageError(f"{what} ({short_reason(error)})") from error


def library_of(state: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The library's object.

    Raises:
      UsageError: the library cannot read the state.
    """
    content = {**state, "truncation": None, "padding": None, "post_processor": None}
    with library_errors(f"not a tokenizer that tokenizers {tokenizers.__version__} can read"):
        _check_merges(state["model"])
        return tokenizers.Tokenizer.from_str(json.dumps(content))


def _check_merges(model: Mapping[str, Any]) -> None:
    """Refuses merges of pieces that are not in the vocabulary, at which Rust may panic."""
    vocab, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
    for merge in model.get("merges") or ():
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        whole = first + second.removeprefix(prefix)
        if missing := [piece for piece in (first, second, whole) if piece not in vocab]:
            raise UsageError(f"its merges have a piece {missing[0]!r:.40}, its vocabulary has not")


def check_ids(ids: Mapping[str, int]) -> None:
    """Refuses a vocabulary that consists of gaps: each id takes memory, here and in models.

    Raises:
      UsageError: most ids have no piece.
    """
    last = max(ids.values(), default=-1)
    if last >= 2 * len(ids) + MOST_GAPS:
        raise UsageError(f"it has {len(ids):,} pieces, and ids up to {last:,}")


def isolated(state: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """The same with ids kept, where no text spells the token of a role.

    Tokens that were added for another use are found in text, also special ones.
    """
    names = set(roles.values())
    model = dict(state["model"])
    pieces = model["vocab"]
    known = {piece for piece, _ in pieces} if isinstance(pieces, list) else set(pieces)
    # The pieces of byte-pair encoding arise from merges, but for this setting.
    spelt = known & names if model["type"] != "BPE" or model.get("ignore_merges") else set()
    if isinstance(pieces, list):
        model["vocab"] = [[HIDDEN + p if p in spelt else p, score] for p, score in pieces]
    else:
        model["vocab"] = {HIDDEN + p if p in spelt else p: id for p, id in pieces.items()}
    if model.get("unk_token") in spelt:
        model["unk_token"] = HIDDEN + model["unk_token"]
    added = [
        {**token, "special": token["content"] in names}
        for token in state.get("added_tokens") or []
        if token["content"] not in spelt
    ]
    return {**state, "model": model, "added_tokens": added}


def steps(state: Mapping[str, Any], part: str) -> Iterator[Mapping[str, Any]]:
    """The normalizers, pre-tokenizers or decoders of a state one after another."""
    step = state.get(part)
    if not step:
        return
    if step["type"] == "Sequence":
        inner = step.get("normalizers") or step.get("pretokenizers") or step.get("decoders") or ()
        for one in inner:
            yield from steps({part: one}, part)
    else:
        yield step


def normalization(state: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether text is lower-cased, and whether accents are taken off."""
    lower = strip = False
    for step in steps(state, "normalizer"):
        if step["type"] == "BertNormalizer":
            lower |= bool(step["lowercase"])
            accents = step.get("strip_accents")
            strip |= bool(step["lowercase"] if accents is None else accents)
        lower |= step["type"] == "Lowercase"
        strip |= step["type"] == "StripAccents"
    return lower, strip


def separators(
    library: tokenizers.Tokenizer, state: Mapping[str, Any], roles: Mapping[str, str]
) -> re.Pattern | None:
    """Finds where text can be cut so that each part keeps its ids.

    That is before a space, which stays with what follows, and before the punctuation that ends
    a word. What the pattern consumes, its only group, is the first character of a part.

    None if this tokenizer's pieces, or what it does to text, may reach over a space.
    """
    if not _is_local(state, roles):
        return None
    for probe in _PROBES:
        parts = re.split("(?= )", probe)
        apart = sum((_words(library, part) for part in parts), []) == _words(library, probe)
        if not apart or not _cut_keeps_pieces(library, probe, "(?= )"):
            return None
    spaces = " "
    if any(step["type"] in ("BertNormalizer", "Nmt") for step in steps(state, "normalizer")):
        spaces = " \n"  # in which both are the same
    ends = "".join(_ends_of_words(library, state))
    cut = rf"(?<=[!-~\w][{spaces}])(?=[!-~\w])(?<![{_JOINS_NEXT}][{spaces}])(?![{_JOINS_LAST}])"
    if ends and all(_cut_keeps_pieces(library, p, rf"(?<=\w)(?=[{ends}])") for p in _PROBES):
        cut = rf"(?:{cut}|(?<=[A-Za-z0-9][{ends}])(?=[{ends}]*(?:[{spaces}]|\Z)))"
    return re.compile(f"([{spaces}{ends}]){cut}")


def _is_local(state: Mapping[str, Any], roles: Mapping[str, str]) -> bool:
    """Whether its parts are of the kinds that look no further than from space to space."""
    for token in state.get("added_tokens") or []:
        content = token["content"]
        reaches = token["rstrip"] or (content.strip() and re.search(r"\s", content))
        if reaches and content not in roles.values():
            return False
    for step in steps(state, "normalizer"):
        pattern = step.get("pattern") or {}
        if step["type"] not in _LOCAL_NORMALIZERS or " " in pattern.get("String", ""):
            return False
        if step["type"] == "Replace" and pattern.get("Regex", " {2,}") != " {2,}":
            return False
    for step in steps(state, "pre_tokenizer"):
        pattern = step.get("pattern") or {}
        if step["type"] not in _LOCAL_PRE_TOKENIZERS or "(?<" in pattern.get("Regex", ""):
            return False
    return True


def _ends_of_words(library: tokenizers.Tokenizer, state: Mapping[str, Any]) -> list[str]:
    """The punctuation that is never in one piece with a letter or a digit before it."""
    pieces = set(library.get_vocab(with_added_tokens=True))
    inside = {found for piece in pieces for found in re.findall(r"(?<=[A-Za-z0-9])[^\w\s]", piece)}
    # Unknown characters side by side can become one token.
    alone = {*ENDS} & pieces - inside if state["model"]["type"] in ("Unigram", "BPE") else set()
    return [c for c in ENDS if c in alone or _words(library, f"ab{c}")[1:] == [c]]


def _cut_keeps_pieces(library: tokenizers.Tokenizer, text: str, cut: str) -> bool:
    """Whether text becomes the same pieces if it is cut."""
    first, *rest = re.split(cut, text)
    ids = library.encode(first, add_special_tokens=False).ids
    word = library.encode("a", add_special_tokens=False).ids
    for part in rest:
        behind = "" if part[0] == " " else "a"
        encoded = library.encode(behind + part, add_special_tokens=False).ids
        if behind and encoded[: len(word)] != word:
            return False
        ids += encoded[len(word) :] if behind else encoded
    return ids == library.encode(text, add_special_tokens=False).ids


def _words(library: tokenizers.Tokenizer, text: str) -> list[str]:
    """What the library's model sees at once."""
    normal = library.normalizer.normalize_str(text) if library.normalizer else text
    if library.pre_tokenizer is None:
        return [normal]
    return [word for word, _ in library.pre_tokenizer.pre_tokenize_str(normal)]


def continuation(state: Mapping[str, Any], pieces: Sequence[str]) -> np.ndarray:
    """Which pieces continue a word (see `Tokenizer.continuation`): bool [pieces]."""
    model = state["model"]
    prefix = model.get("continuing_subword_prefix")
    if prefix:
        return np.array([piece.startswith(prefix) for piece in pieces])
    if model["type"] == "WordLevel" or model.get("end_of_word_suffix"):
        return np.zeros(len(pieces), bool)  # how a word ends is told, and not how one goes on
    parts = ("normalizer", "pre_tokenizer", "decoder")
    if any(step["type"] == "ByteLevel" for part in parts for step in steps(state, part)):
        return np.array([_continues_bytes(piece) for piece in pieces])
    return np.array(
        [
            bool(_BYTE_PIECE.fullmatch(piece))
            or bool(piece and piece[0] != "▁" and not _STARTS_WORD.match(piece))
            for piece in pieces
        ]
    )


def _continues_bytes(piece: str) -> bool:
    if not piece or not set(piece) <= _byte_of().keys():
        return False
    content = bytes(_byte_of()[character] for character in piece)
    if content[0] & 0xC0 == 0x80:  # the middle of a character
        return True
    text = content.decode("utf-8", "ignore")
    # The start of a character alone: of three bytes and more are most scripts without spaces.
    return not _STARTS_WORD.match(text) if text else content[0] < 0xE0


@functools.cache
def _byte_of() -> dict[str, int]:
    """Bytes by the printable characters that stand for them in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


def bert_pipeline(
    lower_case: bool, strip_accents: bool | None, chinese: bool = True
) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
    """BERT's normalisation and its cut into words."""
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese,
        strip_accents=strip_accents,
        lowercase=lower_case,
    )
    return normalizer, pre_tokenizers.BertPreTokenizer()


def bert_state(
    vocabulary: Sequence[str],
    *,
    lower_case: bool,
    strip_accents: bool | None,
    chinese: bool = True,
    unknown: str = "[UNK]",
    prefix: str = "##",
) -> dict[str, Any]:
    """BERT's tokenizer over pieces in the order of their ids.

    Raises:
      UsageError: a piece occurs twice, or the unknown token is missing.
    """
    ids = {piece: id for id, piece in enumerate(vocabulary)}
    if len(ids) < len(vocabulary):
        piece, id = next((p, i) for i, p in enumerate(vocabulary) if ids[p] != i)
        raise UsageError(f"piece {piece!r} occurs twice: in lines {id + 1} and {ids[piece] + 1}")
    if unknown not in ids:
        raise UsageError(f"no {unknown} in the vocabulary of {len(ids)} pieces")
    library = tokenizers.Tokenizer(
        models.WordPiece(
            ids, unk_token=unknown, continuing_subword_prefix=prefix, max_input_chars_per_word=100
        )
    )
    library.normalizer, library.pre_tokenizer = bert_pipeline(lower_case, strip_accents, chinese)
    # Its clean-up would also turn "do not" into "don't".
    library.decoder = decoders.WordPiece(prefix=prefix, cleanup=False)
    return json.loads(library.to_str())


def bert_settings(state: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any] | None:
    """What makes the same `WordPieceTokenizer`, or None if none is the same."""
    model, normalizer = state["model"], state.get("normalizer") or {}
    if model["type"] != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        return None
    ids = model["vocab"]
    added = {token["content"]: token.get("id") for token in state.get("added_tokens") or []}
    same = (
        tuple(roles.get(role) for role in ROLES) == SPECIAL_TOKENS
        and all(token in SPECIAL_TOKENS and ids.get(token) == id for token, id in added.items())
        and sorted(ids.values()) == list(range(len(ids)))
        and not any("\n" in piece or piece.endswith("\r") for piece in ids)
        and (state.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and model["unk_token"] == "[UNK]"
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == 100
        and normalizer["clean_text"]
        and normalizer["handle_chinese_chars"]
    )
    if not same:
        return None
    return {
        "vocabulary": sorted(ids, key=ids.__getitem__),
        "lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
    }


def with_token(state: Mapping[str, Any], content: str, special: bool = True) -> dict[str, Any]:
    """The state with a token added, which gets the next id."""
    token = {
        "id": max(library_of(state).get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }
    return {**state, "added_tokens": [*(state.get("added_tokens") or []), token]}
