"""Tokenizers as people have them: which files are read, whose word counts, what is refused."""

import json
import logging
import shutil

import pytest
import sentencepiece
import tokenizers
from data.test_tokenizer import TEXTS
from data.test_tokenizer_ids import with_bytes
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from electra_jax.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer, load_tokenizer
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError
from electra_jax.interop.fast_tokenizer import save_fast_tokenizer

VOCAB = [*SPECIAL_TOKENS, "cat", "##s", "Cat", "中", "##中", "cafe", "café", "[X]"]


def write(folder, vocab=VOCAB, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", "utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def pieces(tokenizer, text):
    return tokenizer.pieces(tokenizer.encode([text])[0])


@pytest.mark.parametrize(
    ("words", "lower_case", "strip_accents"),
    [
        (["Москва", "йод"], False, False),
        (["Αθήνα"], False, False),
        (["москва", "cat"], True, True),
        (["москва", "йод"], True, False),  # accents in lower-cased pieces: they are kept
        (["[UNUSED]", "cat", "中"], True, True),
        (["Ⴀ"], False, False),
    ],
)
def test_a_bare_vocabulary_tells_its_case_in_any_script(tmp_path, words, lower_case, strip_accents):
    tokenizer = load_tokenizer(write(tmp_path, [*SPECIAL_TOKENS, *words]) / "vocab.txt")
    assert (tokenizer.lower_case, tokenizer.strip_accents) == (lower_case, strip_accents)
    for word in words:
        if not word.startswith("["):
            assert pieces(tokenizer, word) == [word]


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({"do_lower_case": True}, "Cat CAFÉ", ["cat", "cafe"]),
        ({"do_lower_case": True, "strip_accents": False}, "CAFÉ", ["café"]),
        ({"do_lower_case": False}, "Cat café", ["Cat", "café"]),
        ({"do_lower_case": False, "strip_accents": True}, "café", ["cafe"]),
        ({"do_lower_case": False, "tokenize_chinese_chars": False}, "cat中", ["cat", "##中"]),
        ({"do_lower_case": False, "handle_chinese_chars": False}, "cat中", ["cat", "##中"]),
        ({"do_lower_case": False}, "cat中", ["cat", "中"]),
        ({"do_lower_case": False, "additional_special_tokens": ["[X]"]}, "cat[X]", ["cat", "[X]"]),
        ({"do_lower_case": False, "added_tokens_decoder": {"13": {"content": "<new>"}}}, "cat<new>",
         ["cat", "<new>"]),
    ],
)  # fmt: skip
def test_settings_of_a_vocabulary_are_followed(tmp_path, config, text, expected):
    tokenizer = load_tokenizer(write(tmp_path, **config))
    assert pieces(tokenizer, text) == expected
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert pieces(again, text) == expected and again.identity == tokenizer.identity


def test_own_special_tokens_and_prefixes_are_followed(tmp_path):
    vocab = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "cat", "@s"]
    roles = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "cls_token": "<s>",
             "sep_token": "</s>", "mask_token": "<mask>"}  # fmt: skip
    tokenizer = load_tokenizer(write(tmp_path, vocab, wordpieces_prefix="@", **roles))
    assert pieces(tokenizer, "cats dog <mask>") == ["cat", "@s", *["<unk>"] * 4]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 4)
    assert tokenizer.continuation().tolist() == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"do_basic_tokenize": False}, "do_basic_tokenize"),
        ({"never_split": ["cat"]}, "never_split"),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer"),
        ({"auto_map": {"AutoTokenizer": ["my.Own", None]}}, r"my\.Own"),
        ({"added_tokens_decoder": {"40": {"content": "<new>"}}}, "<new> would have the id 13"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_by_name(tmp_path, config, named):
    with pytest.raises(UsageError, match=named):
        load_tokenizer(write(tmp_path, **config))


def test_a_slow_tokenizer_without_a_vocabulary_is_refused_by_name(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMTokenizer"}')
    with pytest.raises(UsageError, match="XLMTokenizer"):
        load_tokenizer(tmp_path)


def test_tokenizer_json_goes_before_vocab_txt(tmp_path, caplog):
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "dog", "Dog"], lower_case=False)
    folder = write(tmp_path, [*SPECIAL_TOKENS, "dog", "Other"])
    save_fast_tokenizer(tokenizer, folder, 64)
    found = load_tokenizer(folder)
    assert found.identity == tokenizer.identity and pieces(found, "Dog") == ["Dog"]
    assert "differ; tokenizer.json is read" in caplog.text


def test_settings_beside_tokenizer_json_are_followed_as_transformers_does(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    save_fast_tokenizer(WordPieceTokenizer(VOCAB, lower_case=True), tmp_path, 64)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast", "do_lower_case": False})
    )
    tokenizer = load_tokenizer(tmp_path)
    assert pieces(tokenizer, "Cat") == ["Cat"] and "lowercase=False" in caplog.text


def test_tokens_without_a_role_are_asked_for_and_added(tmp_path):
    library = tokenizers.Tokenizer(
        models.BPE({"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")])
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.add_special_tokens(["<|endoftext|>"])
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"pad, cls, sep, mask.*--special-token mask=TOKEN"):
        load_tokenizer(tmp_path)
    end = dict.fromkeys(("pad", "cls", "sep"), "<|endoftext|>")
    tokenizer = load_tokenizer(tmp_path, special_tokens={**end, "mask": "<mask>"})
    assert (tokenizer.pad_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 0, 4)
    assert tokenizer.vocab_size == 5 and tokenizer.knows_every_text
    assert tokenizer.encode(["ab<mask>ba<|endoftext|>"]) == [[3, 1, 2, 1]]  # "<" has no piece
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").mask_id == 4
    with pytest.raises(UsageError, match="another special token"):
        load_tokenizer(tmp_path, special_tokens=dict.fromkeys([*end, "mask"], "<|endoftext|>"))
    with pytest.raises(UsageError, match="'bos'"):
        load_tokenizer(tmp_path, special_tokens={"bos": "a"})


def test_roles_come_from_the_row_that_a_post_processor_makes(tmp_path):
    library = with_bytes(add_prefix_space=False)
    library.add_special_tokens(["<begin>", "<end>", "<pad>", "<mask>"])
    library.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>",
        special_tokens=[(t, library.token_to_id(t)) for t in ("<begin>", "<end>")],
    )
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text(
        '{"pad_token": "<pad>", "mask_token": {"content": "<mask>"}}'
    )
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.roles["cls"] == "<begin>" and tokenizer.roles["sep"] == "<end>"
    assert tokenizer.pad_id == library.token_to_id("<pad>")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_plain_sentencepiece_model_is_read(tmp_path, kind):
    prefix = tmp_path / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(prefix), model_type=kind, vocab_size=180,
        pad_id=3, user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"], minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    given = [tmp_path / "spiece.model", tmp_path]
    (tmp_path / "spiece.vocab").unlink()
    for path in given:
        tokenizer = load_tokenizer(path, special_tokens={"cls": "[CLS]", "sep": "[SEP]"})
        assert tokenizer.pad_id == 3 and tokenizer.unk_id == 0 and tokenizer.kind == kind
        for text in [*TEXTS[:4], "ﬁne  ½ ガ ｶﾞ 한국", "e\u0301te\u0301"]:
            assert tokenizer.encode([text])[0] == processor.encode(text), text
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").identity == tokenizer.identity
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(UsageError, match="CamembertTokenizer"):
        load_tokenizer(tmp_path)


def test_vocab_json_and_merges_are_read(tmp_path):
    library = with_bytes(add_prefix_space=False)
    library.model.save(str(tmp_path))
    text = "The Crème brûlée, eaten"
    expected = library.encode(text, add_special_tokens=False).ids
    assert load_tokenizer(tmp_path).encode([text]) == [expected]
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UsageError, match=r"vocab\.json alone"):
        load_tokenizer(tmp_path / "vocab.json")


def test_directories_of_ours_and_of_transformers_are_searched(tmp_path):
    tokenizer = train_tokenizer(TEXTS, "unigram", 420)
    tokenizer.save(tmp_path / "run" / "tokenizer")
    (tmp_path / "exported" / "discriminator").mkdir(parents=True)
    save_fast_tokenizer(tokenizer, tmp_path / "exported" / "discriminator", 64)
    for folder in ("run", "exported"):
        assert load_tokenizer(tmp_path / folder).identity == tokenizer.identity
    shutil.copy(tmp_path / "exported" / "discriminator" / "tokenizer.json", tmp_path / "a.json")
    assert load_tokenizer(tmp_path / "a.json").identity == tokenizer.identity


def test_a_folder_of_version_0_1_has_the_ids_of_sentencepiece(tmp_path):
    """Its sentencepiece.model was trained with SentencePiece's normalisation."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_prefix=str(tmp_path / "sentencepiece"),
        model_type="unigram", vocab_size=420, normalization_rule_name="nmt_nfkc_cf",
        byte_fallback=True, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece="[PAD]",
        unk_piece="[UNK]", bos_piece="[CLS]", eos_piece="[SEP]", control_symbols=["[MASK]"],
        minloglevel=2,
    )  # fmt: skip
    from electra_jax.data.tokenizer import SentencePieceTokenizer

    model = (tmp_path / "sentencepiece.model").read_bytes()
    SentencePieceTokenizer(model, kind="unigram", lower_case=True).save(tmp_path / "old")
    record = json.loads((tmp_path / "old" / "electra_jax_tokenizer.json").read_text())
    assert record["format_version"] == 1
    tokenizer = load_tokenizer(tmp_path / "old")
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in [*TEXTS[:4], "ガ 한국 <0x41> [MASK] Straße", "あ" * 2500, "the cat " * 400]:
        [ids] = tokenizer.encode([text])
        assert ids == library.encode(text)
        assert len(tokenizer.offsets(text)) == len(ids)
    assert tokenizer.decode(tokenizer.encode(["the cat"])[0]) == "the cat"


def test_a_normalizer_that_reaches_over_spaces_is_left_to_the_library(tmp_path):
    library = tokenizers.Tokenizer(models.Unigram([("[UNK]", 0.0), ("▁", -1.0), ("a", -1.0)], 0))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Metaspace()
    library.add_special_tokens(list(SPECIAL_TOKENS))
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert pieces(tokenizer, "a a") == ["▁", "a", "▁", "a"]
    assert tokenizer.encode_words(["a", "a"]) == [[1, 2], [1, 2]]
