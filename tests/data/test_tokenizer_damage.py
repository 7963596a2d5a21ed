"""Files of a tokenizer that were cut, changed or made up are told apart from those it wrote."""

import json
import shutil

import pytest

from electra_jax.data.tokenizer import Tokenizer, load_tokenizer
from electra_jax.data.tokenizer_record import RECORD_NAME
from electra_jax.data.tokenizer_state import library_of
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.errors import UsageError

TEXTS = [f"Document {n} speaks of {'cats and dogs ' * (n % 7)}, and of ünïcödé." for n in range(99)]


@pytest.fixture(scope="module", params=["vocab.txt", "tokenizer.json"])
def saved(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("saved")
    tokenizer = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=100)
    if request.param == "tokenizer.json":
        tokenizer = Tokenizer(tokenizer.state(), tokenizer.roles)
    tokenizer.save(folder)
    assert (folder / request.param).is_file()
    return folder


def test_any_damaged_byte_of_a_folder_is_noticed(saved, tmp_path):
    """Also what determines no ids, such as how tokens become text again."""
    shutil.copytree(saved, tmp_path / "copy")
    expected = load_tokenizer(saved)
    for file in (tmp_path / "copy").iterdir():
        content = file.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 150)):
            file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 7]) + content[at + 1 :])
            try:
                found = load_tokenizer(tmp_path / "copy")
            except UsageError as error:
                assert str(tmp_path) in str(error) and "\n" not in str(error)
            else:  # another white space
                assert file.name == RECORD_NAME and found.state() == expected.state()
        file.write_bytes(content)


def test_a_cut_or_missing_file_is_refused(saved, tmp_path):
    for name in (file.name for file in saved.iterdir()):
        folder = shutil.copytree(saved, tmp_path / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UsageError, match="tokenizer at"):
            load_tokenizer(folder)
        if name != RECORD_NAME:
            (folder / name).unlink()
            with pytest.raises(UsageError, match=name):
                load_tokenizer(folder)


def test_a_vocabulary_that_looks_cut_off_is_warned_of(tmp_path, caplog):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(pieces) + "\n")
    load_tokenizer(tmp_path)
    assert "cut off" not in caplog.text
    file.write_text("\n".join(pieces))
    load_tokenizer(tmp_path)
    assert "cut off after '##s'?" in caplog.text
    caplog.clear()
    file.write_text("\n".join(pieces) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 30522}))
    load_tokenizer(tmp_path)
    assert "8 pieces and the model beside it 30522" in caplog.text


def test_an_empty_vocabulary_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("")
    with pytest.raises(UsageError, match="vocab.txt is empty"):
        load_tokenizer(tmp_path)


def test_ids_with_gaps_take_no_memory(saved, tmp_path):
    """A list of all ids would have four thousand million entries."""
    state = load_tokenizer(saved).state()
    vocab = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 2**32 - 1}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**state, "model": model}))
    with pytest.raises(UsageError, match="ids up to 4,294,967,295"):
        load_tokenizer(tmp_path)


SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}


def test_merges_of_pieces_that_are_not_there_are_refused(tmp_path):
    """The library panics at a piece that is longer than all that it knows."""
    vocab = {**SPECIAL, "a": 5, "bcdef": 6}
    model = {"type": "BPE", "vocab": vocab, "merges": [["a", "bcdef"]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    with pytest.raises(UsageError, match="its merges have a piece 'abcdef'"):
        load_tokenizer(tmp_path)


def test_a_vocab_json_with_gaps_takes_no_memory(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({**SPECIAL, "a": 2**32 - 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UsageError, match="ids up to 4,294,967,295"):
        load_tokenizer(tmp_path)


def test_text_that_a_tokenizer_has_no_ids_for_is_refused_in_one_line(saved):
    """The library's exceptions are of no narrower kind."""
    tokenizer = load_tokenizer(saved)
    unknown = {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}
    tokenizer.library = library_of({"version": "1.0", "model": unknown})
    for encode in (tokenizer.offsets, lambda text: tokenizer._encode_batch([text])):
        with pytest.raises(UsageError, match="has no ids for a text"):
            encode("b")
