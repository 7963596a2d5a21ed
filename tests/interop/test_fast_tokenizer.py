"""The exported tokenizer gives our ids."""

import itertools
import json

import pytest
import tokenizers

from electra_jax.data.documents import Documents
from electra_jax.data.tokenizer import KINDS, SPECIAL_TOKENS, WordPieceTokenizer
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.interop.fast_tokenizer import save_fast_tokenizer

TEXTS = [
    "The Crème brûlée was eaten by the cat, not the dog.",
    "Don't the cats eat what the dogs have eaten?",
    "東京は日本の首都です。 ไทย and other scripts",
    "numbers 1, 2, 3 and 12345 with punctuation -- all of it!",
] * 20
TEXTS += [
    " ".join(a + b + c for a in (one, two) for b in "aeiou" for c in ("ting", "ly", "ment"))
    for one in ("br", "c", "d", "m", "st", "pl", "qu", "v", "w")
    for two in ("gr", "fl", "h", "j", "k", "sn", "x", "y", "z")
]
STRANGE = [
    "", "  two  spaces \n\t and lines ", "naïve café", "中文 mixed with english", "🙂 emoji",
    "under_score ▁ itself", "ﬁne ligatures, ½ and ① too", "HELLO World",
]  # fmt: skip
SIZES = {"wordpiece": 250, "unigram": 420, "bpe": 460}


def exported(tokenizer, folder):
    save_fast_tokenizer(tokenizer, folder, 128)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_exported_ids_are_ours(kind, lower_case, tmp_path):
    tokenizer = train_tokenizer(TEXTS, kind, SIZES[kind], lower_case=lower_case)
    fast = exported(tokenizer, tmp_path)
    for text in [*TEXTS, *STRANGE]:
        [ours] = tokenizer.encode([text])
        assert fast.encode(text, add_special_tokens=False).ids == ours, text
        assert fast.encode(text).ids == [tokenizer.cls_id, *ours, tokenizer.sep_id]


def test_a_pair_has_types(tmp_path):
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 250)
    pair = exported(tokenizer, tmp_path).encode("the cat", "the dog")
    cut = pair.ids.index(tokenizer.sep_id) + 1
    assert pair.type_ids == [0] * cut + [1] * (len(pair.ids) - cut)
    assert pair.ids[-1] == tokenizer.sep_id


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_exported_ids_are_ours_on_real_text(kind, electra_data, tmp_path):
    documents = Documents([f"text:{electra_data}/text/valid.txt.xz"])
    texts = list(itertools.islice(iter(documents), 300))
    tokenizer = train_tokenizer(texts[:60], kind, 2000)
    fast = exported(tokenizer, tmp_path)
    ours = tokenizer.encode(texts)
    theirs = [x.ids for x in fast.encode_batch(texts, add_special_tokens=False)]
    assert theirs == ours


@pytest.mark.parametrize("types", [True, False])
def test_token_types_are_told_only_to_models_that_have_them(types, tmp_path):
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "a"])
    save_fast_tokenizer(tokenizer, tmp_path, 128, types)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert ("token_type_ids" in config["model_input_names"]) is types
