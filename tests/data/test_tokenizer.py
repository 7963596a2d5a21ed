"""Tokenizers: BERT's rules, scripts without spaces, byte fallback, saving and refusing."""

import json

import numpy as np
import pytest

from electra_jax.data.tokenizer import (
    KINDS,
    RECORD_NAME,
    SPECIAL_TOKENS,
    WordPieceTokenizer,
    load_tokenizer,
)
from electra_jax.data.tokenizer_training import train_tokenizer
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
