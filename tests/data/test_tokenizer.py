"""Tokenizers: BERT's rules, scripts without spaces, byte fallback, saving and refusing."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from electra_jax.data import tokenizer as tokenizer_module
from electra_jax.data import tokenizer_training
from electra_jax.data.tokenizer import (
    KINDS,
    RECORD_NAME,
    SPECIAL_TOKENS,
    WordPieceTokenizer,
    load_tokenizer,
)
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.data.wordpiece_training import wordpiece_vocabulary
from electra_jax.errors import UsageError

TEXTS = [
    "The Crème brûlée was eaten by the cat, not the dog.",
    "Don't the cats eat what the dogs have eaten?",
    "東京は日本の首都です。 ไทย and other scripts",
    "numbers 1, 2, 3 and 12345 with punctuation -- all of it!",
] * 20
# Words of many kinds, for SentencePiece to find enough pieces in.
TEXTS += [
    " ".join(a + b + c for a in (one, two) for b in "aeiou" for c in ("ting", "ly", "ment"))
    for one in ("br", "c", "d", "m", "st", "pl", "qu", "v", "w")
    for two in ("gr", "fl", "h", "j", "k", "sn", "x", "y", "z")
]
STRANGE = ["", " \n\t ", "naïve [MASK] café", "中文 mixed with english", "a" * 3000, "🙂 emoji"]
SIZES = {"wordpiece": 250, "unigram": 420, "bpe": 460}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return train_tokenizer(TEXTS, request.param, SIZES[request.param])


def test_special_tokens_come_first_and_text_never_becomes_one(tokenizer):
    assert tokenizer.pieces(range(5)) == list(SPECIAL_TOKENS)
    specials = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    for ids in tokenizer.encode([*TEXTS, *STRANGE, "[CLS] [SEP] [PAD]"]):
        assert not specials & set(ids)


def test_texts_are_encoded_each_for_itself_and_decode_to_themselves(tokenizer):
    together = tokenizer.encode(TEXTS[:4])
    assert together == [tokenizer.encode([text])[0] for text in TEXTS[:4]]
    plain = "the cat eats what the dog eats"
    assert tokenizer.decode(tokenizer.encode([plain])[0]) == plain
    assert tokenizer.encode(["", " \n "]) == [[], []]


def test_saved_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded.identity == tokenizer.identity and loaded.kind == tokenizer.kind
    assert loaded.encode([*TEXTS, *STRANGE]) == tokenizer.encode([*TEXTS, *STRANGE])


def test_offsets_point_at_what_each_piece_stands_for(tokenizer):
    text = "The cat, eaten by  dogs?"
    ids = tokenizer.encode([text])[0]
    spans = tokenizer.offsets(text)
    assert len(spans) == len(ids)
    for piece, (start, end) in zip(tokenizer.pieces(ids), spans, strict=True):
        bare = piece.removeprefix("##").removeprefix("▁")
        if not piece.startswith("<0x") and piece not in SPECIAL_TOKENS:
            assert text[start:end].lower() == bare


def test_offsets_count_from_the_start_of_a_long_text(tokenizer):
    """A long text is encoded in segments."""
    sentence = "the cat, eaten by dogs? "
    spans = tokenizer.offsets(sentence)
    expected = [
        (start + number * len(sentence), end + number * len(sentence))
        for number in range(100)
        for start, end in spans
    ]
    assert tokenizer.offsets(sentence * 100) == expected


def test_continuation_tells_whole_words(tokenizer):
    text = "the unbelievable cats"
    ids = np.array(tokenizer.encode([text])[0])
    assert (~tokenizer.continuation()[ids]).sum() == 3


def test_long_text_is_cut_at_spaces_and_keeps_its_ids(tokenizer):
    sentence = "the cat was eaten by the dog "
    ids = tokenizer.encode([sentence.strip()])[0]
    assert tokenizer.encode([sentence * 500])[0] == ids * 500


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_falls_back_to_bytes(kind):
    tokenizer = train_tokenizer(TEXTS, kind, SIZES[kind], lower_case=False)
    [ids] = tokenizer.encode(["🙂 ꙮ"])
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "🙂 ꙮ"


def test_wordpiece_follows_bert():
    vocabulary = [*SPECIAL_TOKENS, "un", "##aff", "##able", "creme", ",", "中", "文", "Creme"]
    lower = WordPieceTokenizer(vocabulary)
    assert lower.pieces(lower.encode(["Unaffable, crème 中文 zzz"])[0]) == [
        "un", "##aff", "##able", ",", "creme", "中", "文", "[UNK]",
    ]  # fmt: skip
    cased = WordPieceTokenizer(vocabulary, lower_case=False)
    assert cased.pieces(cased.encode(["Creme crème"])[0]) == ["Creme", "[UNK]"]


def test_a_bert_vocabulary_is_read_with_its_case(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join([*SPECIAL_TOKENS, "cat", "##s"]) + "\n")
    assert load_tokenizer(file).lower_case
    file.write_text("\n".join([*SPECIAL_TOKENS, "Cat", "##s"]) + "\n")
    assert not load_tokenizer(tmp_path).lower_case
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert load_tokenizer(file).lower_case


def test_case_changes_identity():
    lower, cased = (train_tokenizer(TEXTS, "wordpiece", 250, lower_case=c) for c in (True, False))
    assert lower.identity != cased.identity
    assert cased.encode(["The"]) != cased.encode(["the"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: load_tokenizer(d / "none"), "no such file"),
        (lambda d: load_tokenizer(d), "no tokenizer in"),
        (lambda d: (d / "vocab.txt").write_text("a\nb\n") and load_tokenizer(d), r"no \[UNK\]"),
        (lambda d: train_tokenizer([], "bpe", 500), "no text"),
        (lambda d: train_tokenizer(TEXTS, "wordpeice", 500), "did you mean wordpiece|wordpiece"),
        (lambda d: train_tokenizer(TEXTS, "wordpiece", 5), "too small"),
        (lambda d: train_tokenizer(["a b"], "unigram", 90_000), "too high"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, make, message):
    with pytest.raises(UsageError, match=message):
        make(tmp_path)


def test_an_altered_tokenizer_is_refused(tmp_path):
    train_tokenizer(TEXTS, "wordpiece", 250).save(tmp_path)
    with (tmp_path / "vocab.txt").open("a") as file:
        file.write("extra\n")
    with pytest.raises(UsageError, match="altered"):
        load_tokenizer(tmp_path)
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    (tmp_path / RECORD_NAME).write_text(json.dumps({**record, "format_version": 99}))
    with pytest.raises(UsageError, match="newer"):
        load_tokenizer(tmp_path)


WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "a": 1, "b": 1}


def test_wordpiece_training_breaks_ties_by_the_pieces_own_order():
    """Not by the order of a hash table: whatever the words' order, and in another process."""
    given = dict(reversed(WORDS.items()))
    pieces = wordpiece_vocabulary(WORDS, 40, SPECIAL_TOKENS)
    assert wordpiece_vocabulary(given, 40, SPECIAL_TOKENS) == pieces
    # "lo" and "##ow" are as frequent: ids decide.
    merged = [piece for piece in pieces[5:] if len(piece.removeprefix("##")) > 1]
    assert merged[:4] == ["##es", "##est", "##ow", "low"]
    assert len(pieces) <= 40 and len(set(pieces)) == len(pieces)


def test_trained_twice_in_other_processes_is_the_same(tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from data.test_tokenizer import TEXTS, SIZES\n"
        "from electra_jax.data.tokenizer_training import train_tokenizer\n"
        "for kind, size in SIZES.items():\n"
        "    print(kind, train_tokenizer(TEXTS, kind, size).identity)\n"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
        ).stdout
        for seed, threads in (("1", "1"), ("2", "2"))
    ]  # fmt: skip
    assert runs[0] == runs[1] and len(runs[0].split()) == 6


def test_a_sample_of_a_large_text_is_the_same_each_time(monkeypatch):
    monkeypatch.setattr(tokenizer_training, "SAMPLE_LINES", 110)
    identities = {train_tokenizer(TEXTS, "unigram", 400).identity for _ in range(3)}
    assert len(identities) == 1


def test_the_alphabet_takes_what_the_vocabulary_leaves_free():
    rng = random.Random(0)
    characters = [chr(0x4E00 + 7 * index) for index in range(600)]
    weights = [1 / (index + 5) for index in range(600)]
    texts = ["".join(rng.choices(characters, weights, k=40)) for _ in range(300)]
    for size, most in ((100, 0.6), (400, 0.08), (700, 0.0)):
        tokenizer = train_tokenizer(texts, "wordpiece", size)
        ids = np.concatenate(tokenizer.encode_arrays(texts))
        assert (ids == tokenizer.unk_id).mean() <= most
        assert tokenizer.vocab_size == min(size, len({*"".join(texts)}) + 5)


def test_character_coverage_limits_the_alphabet():
    texts = ["ab " * 500 + " ü"]
    narrow = train_tokenizer(texts, "wordpiece", 100, strip_accents=False, character_coverage=0.99)
    wide = train_tokenizer(texts, "wordpiece", 100, strip_accents=False)
    assert [t.unk_id in t.encode(["ü"])[0] for t in (narrow, wide)] == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_accents_are_kept_or_taken_off(kind):
    for strip in (True, False):
        tokenizer = train_tokenizer(TEXTS, kind, SIZES[kind], strip_accents=strip)
        assert tokenizer.strip_accents is strip
        plain, accented = tokenizer.encode(["creme", "crème"])
        assert (plain == accented) is strip


def test_decomposed_text_has_the_ids_of_composed_text():
    tokenizer = train_tokenizer([*TEXTS, "한국 ガギ Tiếng Việt"], "unigram", 430)
    for text in ("한국", "ガギ", "Tiếng Việt"):
        both = tokenizer.encode([text, unicodedata.normalize("NFD", text)])
        assert both[0] == both[1]
    assert tokenizer.encode(["ｶﾞ"]) == tokenizer.encode(["ガ"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_space_is_put_into_long_text_without_spaces(kind):
    tokenizer = train_tokenizer(TEXTS, kind, SIZES[kind])
    text = "東京は日本の首都です。" * 300
    [ids] = tokenizer.encode([text])
    assert ids == tokenizer.library.encode(text, add_special_tokens=False).ids
    assert sum(piece.startswith("▁") for piece in tokenizer.pieces(ids)) <= 1


def test_what_is_looked_up_again_is_the_same(monkeypatch):
    """Also if little is kept."""
    monkeypatch.setattr(tokenizer_module, "_UNITS_KEPT", 3)
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 250)
    expected = [tokenizer.library.encode(t, add_special_tokens=False).ids for t in TEXTS[:6]]
    for _ in range(3):
        assert tokenizer.encode(TEXTS[:6]) == expected


@pytest.mark.parametrize(
    ("size", "coverage", "message"),
    [
        (400, None, r"need [\d,]+ alone: raise --vocab-size, or lower --character-coverage"),
        (90_000, None, r"gives [\d,]+ at most: lower --vocab-size"),
        (1000, 0.5, r"--character-coverage must be from 0\.98 to 1"),
        (1000, 1.5, "character_coverage=1.5: above 0, to 1"),
    ],
)
def test_advice_is_in_terms_of_our_flags(size, coverage, message):
    texts = ["".join(chr(0x4E00 + 7 * (i + j)) for i in range(40)) for j in range(800)]
    with pytest.raises(UsageError, match=message):
        train_tokenizer(texts, "unigram", size, character_coverage=coverage)


def test_unknown_characters_have_no_piece_alone_nor_within_words():
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "a", "##b", "c"], lower_case=False)
    assert tokenizer.unknown_characters("ab c x") == {"x"}
    assert not tokenizer.knows_every_text
