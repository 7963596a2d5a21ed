"""Ids are those of the tokenizers library on any text, for tokenizers of every kind."""

import functools
import json
import random
import unicodedata

import pytest
import tokenizers
from data.test_tokenizer import SIZES, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from electra_jax.data.tokenizer import KINDS, SPECIAL_TOKENS, Tokenizer, load_tokenizer
from electra_jax.data.tokenizer_state import ROLES
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError
from electra_jax.interop.fast_tokenizer import fast_tokenizer

BERT_ROLES = dict(zip(ROLES, SPECIAL_TOKENS, strict=True))
WORDS = [
    "the cat", "Word, word.", " ", "\n", "e\u0301", "\u3099", "ﾞ", "한국", "ｶﾞ", "<0x41>", "▁",
    "\u00a0", "\u0085", "\u2028", "\u0600", "ำ", "\u0d4e", "'s", "don't", "12,345", "ﷺ", "İ", "ß",
    "🙂", "x" * 150, "あ" * 300, " ab" * 400, "\x00", "\x1f", "”", "--", "\ufffd", "ﱞ",
]  # fmt: skip
text = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=12).map("".join)


def with_bytes(**settings):
    """Byte-level byte-pair encoding, as GPT-2, RoBERTa and ModernBERT have it."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=settings.pop("ignore_merges", False)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(**settings)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(TEXTS, trainer)
    return library


def with_spaces_replaced():
    """Byte-pair encoding with byte fallback over the whole text, as Gemma and mmBERT have it."""
    library = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="[UNK]", fuse_unk=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    library.train_from_iterator([text[:60] for text in TEXTS], trainer)
    return library


@functools.cache
def kinds():
    trained = {kind: train_tokenizer(TEXTS, kind, SIZES[kind]) for kind in KINDS}
    libraries = {
        "byte-level": with_bytes(add_prefix_space=False),
        "byte-level with a space": with_bytes(add_prefix_space=True),
        "byte-level without merges": with_bytes(add_prefix_space=False, ignore_merges=True),
        "spaces replaced": with_spaces_replaced(),
    }
    added = with_bytes(add_prefix_space=False)
    added.add_tokens(["cat", tokenizers.AddedToken("New York", rstrip=True)])
    libraries["added tokens"] = added
    states = {name: json.loads(library.to_str()) for name, library in libraries.items()}
    return trained | {name: Tokenizer(state, BERT_ROLES) for name, state in states.items()}


def library_ids(tokenizer, text):
    library = fast_tokenizer(tokenizer)
    library.encode_special_tokens = True
    return library.encode(text, add_special_tokens=False).ids


NAMES = [*KINDS, "byte-level", "byte-level with a space", "byte-level without merges",
         "spaces replaced", "added tokens"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_offsets_are_the_librarys(name):
    tokenizer = kinds()[name]
    library = fast_tokenizer(tokenizer)

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(text)
    def check(text):
        text = text.encode("utf-8", "replace").decode("utf-8")
        [ids] = tokenizer.encode([text])
        if not any(token in unicodedata.normalize("NFKC", text) for token in SPECIAL_TOKENS):
            assert ids == library.encode(text, add_special_tokens=False).ids
        spans = tokenizer.offsets(text)
        assert len(spans) == len(ids)
        assert all(0 <= start <= end <= len(text) for start, end in spans)
        assert len(tokenizer.pieces(ids)) == len(ids)
        tokenizer.decode(ids)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_exported_ids_are_ours_on_random_text(kind):
    """100,000 strings of characters from everywhere in Unicode."""
    rng = random.Random(0)
    blocks = [(0x20, 0x7E), (0x20, 0x7E), (0, 0x2FF), (0x300, 0x36F), (0x370, 0x6FF),
              (0x900, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x3040, 0x30FF),
              (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0, 0x10FFFF)]  # fmt: skip

    def character():
        code = rng.randint(*rng.choice(blocks))
        return " " if 0xD800 <= code < 0xE000 else chr(code)

    texts = ["".join(character() for _ in range(rng.randint(1, 12))) for _ in range(100_000)]
    tokenizer = kinds()[kind]
    theirs = fast_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)
    ours = tokenizer.encode(texts)
    assert [t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b.ids] == []


@pytest.mark.parametrize("name", NAMES)
def test_text_never_becomes_a_special_token(name):
    tokenizer = kinds()[name]
    special = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    for text in ("[CLS] [SEP][PAD]x[MASK]", "[MASK]", "［ＭＡＳＫ］ [mask]"):
        assert not special & set(tokenizer.encode([text])[0])


@pytest.mark.parametrize("name", NAMES)
def test_words_of_a_sentence_have_the_ids_of_the_sentence(name):
    """But for what stands alone: a byte-level word has its space."""
    tokenizer = kinds()[name]
    words = ["The", "cat,", "x9", "(eaten)", "über", "12"]
    pieces = tokenizer.encode_words(words)
    assert len(pieces) == len(words) and all(pieces)
    assert sum(pieces, []) == tokenizer.encode([" ".join(words)])[0]
    assert tokenizer.encode_words([]) == []


def test_whole_words_in_byte_level_pieces():
    tokenizer = kinds()["byte-level"]
    ids = tokenizer.encode(["a catastrophe, unbelievable 東"])[0]
    starts = ~tokenizer.continuation()[ids]
    pieces = tokenizer.pieces(ids)
    begun = [piece for piece, start in zip(pieces, starts, strict=True) if start]
    assert all(piece[0] in "Ġ,æ" or piece == "a" for piece in begun)
    assert sum(piece.startswith("Ġ") for piece in begun) == 3
    assert not starts[[i for i, p in enumerate(pieces) if p[0] not in "Ġ,aæ"]].any()


VALUES = st.one_of(
    st.none(), st.integers(), st.text(max_size=3), st.lists(st.none(), max_size=2),
    st.dictionaries(st.sampled_from(["type", "vocab"]), st.text(max_size=8), max_size=2),
)  # fmt: skip
KEYS = st.sampled_from(["model", "normalizer", "added_tokens", "x"])


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_no_tokenizer_json_ends_in_a_traceback(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "tokenizer.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="tokenizer at"):
        load_tokenizer(file)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60), st.sampled_from(["vocab.txt", "x.model", "x", "tokenizer.json"]))
def test_no_file_ends_in_a_traceback(tmp_path_factory, content, name):
    file = tmp_path_factory.mktemp("any") / name
    file.write_bytes(content)
    with pytest.raises(UsageError, match="tokenizer at"):
        load_tokenizer(file)
