"""Finds the files of a tokenizer, and reads what they say: its state and its special tokens.

A tokenizer.json goes before the older files beside it, as in the transformers library, and
settings of tokenizer_config.json are followed as that library follows them, or refused.
"""

import json
import logging
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from electra_jax.data.sentencepiece_model import read_model, sentencepiece_state
from electra_jax.data.tokenizer_state import (
    ROLES,
    bert_state,
    check_ids,
    library_errors,
    library_of,
    steps,
    with_token,
)
from electra_jax.errors import UsageError
from electra_jax.system.json_files import read_bytes, read_object

log = logging.getLogger(__name__)

MODELS = ("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model", "tokenizer.model",
          "spm.model")  # fmt: skip
# Where the tokenizer of a directory may lie: of a run, a token store, an export.
FOLDERS = ("tokenizer", "discriminator", "masked_lm", "encoder", "generator")
CURE = (
    "open it with transformers and save what AutoTokenizer.from_pretrained(…) gives, if that has "
    "a tokenizer.json"
)
PADDING = 1024  # ids that models have beyond their vocabulary, for round shapes
# Classes of slow tokenizers, less their ending, whose files tell everything.
_OF_VOCAB_TXT = {
    "", "PreTrained", "Bert", "Electra", "DistilBert", "ConvBert", "MobileBert", "SqueezeBert",
    "Funnel", "Lxmert", "LayoutLM", "MegatronBert", "RetriBert", "Realm", "Nezha", "QDQBert",
    "DPRContextEncoder", "DPRQuestionEncoder", "DPRReader", "ModernBert", "TokenizersBackend",
}  # fmt: skip
_OF_BYTE_PAIRS = {
    "", "GPT2", "Roberta", "Bart", "Longformer", "LED", "BigBird", "Deberta", "ModernBert",
    "PreTrained", "TokenizersBackend",
}  # fmt: skip
_OF_MODEL = {"", "PreTrained", "TokenizersBackend", "SentencePieceBackend"}
_NAMES = {
    "pad": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"),
    "unk": ("[UNK]", "<unk>", "<|unk|>"),
    "cls": ("[CLS]", "<cls>", "<s>", "<bos>", "<|begin_of_text|>"),
    "sep": ("[SEP]", "<sep>", "</s>", "<eos>", "<|end_of_text|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}


def find(path: Path, record: str) -> Path | None:
    """The file that tells most about a tokenizer: `path` itself, or one in its folder."""
    if path.is_file():
        return path
    names = (record, "tokenizer.json", "vocab.txt", *MODELS)
    for name in names:
        if (path / name).is_file():
            return path / name
    if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
        return path / "vocab.json"
    for folder in FOLDERS:
        if (path / folder).is_dir() and (found := find(path / folder, record)):
            return found
    _refuse_slow(_read_object(path / "tokenizer_config.json"), set(), "its vocabulary")
    return None


def read(
    file: Path, lower_case: bool | None, special_tokens: Mapping[str, str] | Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of a tokenizer.json, and the token of each role.

    Args:
      file: as `find` gives it.
      lower_case: None if the files tell.
      special_tokens: by role, instead of what the files tell.

    Raises:
      UsageError: see `load_tokenizer`.
    """
    config = _read_object(file.parent / "tokenizer_config.json")
    if code := (config.get("auto_map") or {}).get("AutoTokenizer"):
        raise UsageError(f"it is Python code of its own ({code}), which is not run; {CURE}")
    content = read_bytes(file)
    if file.suffix == ".json" or content.lstrip()[:1] == b"{":
        state = _read_json(file, config, lower_case)
    elif file.suffix == ".txt" or not _is_model(content):
        state = _read_vocab_txt(file, config, lower_case)
    else:
        _refuse_slow(config, _OF_MODEL, file.name)
        state = sentencepiece_state(content)
        config = {**_roles_of_model(content), **config}
    state = _with_added_tokens(state, file.parent, config)
    if not isinstance(special_tokens, Mapping):
        pairs = [flag.partition("=") for flag in special_tokens]
        special_tokens = {role: token for role, _, token in pairs}
    return _with_roles(state, file.parent, config, special_tokens)


def _read_object(file: Path) -> dict[str, Any]:
    """The object in a file of JSON; an empty one if there is no file."""
    if not file.is_file():
        return {}
    return read_object(file)


def _class(config: Mapping[str, Any]) -> str:
    return re.sub(r"Tokenizer(Fast)?$", "", config.get("tokenizer_class") or "")


def _refuse_slow(config: Mapping[str, Any], read: set[str], name: str) -> None:
    """Refuses a class whose code does more than the file says."""
    if _class(config) not in read and config.get("tokenizer_class"):
        raise UsageError(
            f"{name} is of a {config['tokenizer_class']} without a tokenizer.json, whose code is "
            f"not here; {CURE}"
        )


def _is_model(content: bytes) -> bool:
    if b"\0" in content[:4096]:
        return True
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _read_json(file: Path, config: Mapping[str, Any], lower_case: bool | None) -> dict[str, Any]:
    state = _read_object(file)
    if file.name == "vocab.json" or "model" not in state:
        return _read_byte_pairs(file, state, config)
    library = library_of(state)
    check_ids(library.get_vocab())
    if "type" not in state["model"]:  # as older versions of the library wrote it
        state = json.loads(library.to_str())
    normalizer = state.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer":
        settings = {"lowercase": lower_case, **_bert_normalizer(config, lower_case)}
        changed = {k: v for k, v in settings.items() if v is not None and normalizer[k] != v}
        # By default accents follow the case.
        accents = changed.get("strip_accents", normalizer["strip_accents"])
        if accents is None:
            changed["strip_accents"] = changed.get("lowercase", normalizer["lowercase"])
        if changed.keys() - {"strip_accents"} or accents is not None:
            for name in changed:
                log.info("%-11s %s=%s, by tokenizer_config.json or a flag", "tokenizer", name,
                         changed[name])  # fmt: skip
        state["normalizer"] = {**normalizer, **changed}
    elif lower_case is not None and lower_case != any(
        step["type"] == "Lowercase" for step in steps(state, "normalizer")
    ):
        raise UsageError(f"its tokenizer.json is not for lower_case={lower_case}")
    _follow_prefix_space(state, config)
    vocab = file.parent / "vocab.txt"
    if state["model"]["type"] == "WordPiece" and vocab.is_file():
        ids = state["model"]["vocab"]
        if _lines(vocab) != sorted(ids, key=ids.__getitem__):
            log.warning("%s: tokenizer.json and vocab.txt differ; tokenizer.json is read",
                        file.parent)  # fmt: skip
    return state


def _bert_normalizer(config: Mapping[str, Any], lower_case: bool | None) -> dict[str, Any]:
    """Settings of a BertNormalizer that the classes of BERT take from their config."""
    if _class(config) not in _OF_VOCAB_TXT - {"", "PreTrained", "TokenizersBackend"}:
        return {}
    names = {
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    if lower_case is None:
        names["lowercase"] = "do_lower_case"
    return {ours: config.get(theirs) for ours, theirs in names.items()}


def _follow_prefix_space(state: dict[str, Any], config: Mapping[str, Any]) -> None:
    step, wanted = state.get("pre_tokenizer") or {}, config.get("add_prefix_space")
    if wanted is not None and step.get("add_prefix_space", wanted) != wanted:
        state["pre_tokenizer"] = {**step, "add_prefix_space": wanted}
        log.info("%-11s add_prefix_space=%s, by tokenizer_config.json", "tokenizer", wanted)


def _read_byte_pairs(
    file: Path, ids: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    merges = file.parent / "merges.txt"
    if not merges.is_file() or not all(isinstance(id, int) for id in ids.values()):
        raise UsageError(
            f"{file.name} alone is no tokenizer: give tokenizer.json, vocab.txt, a SentencePiece "
            "model, or the folder that holds them"
        )
    _refuse_slow(config, _OF_BYTE_PAIRS, "vocab.json")
    check_ids(ids)
    with library_errors("vocab.json and merges.txt cannot be read"):
        vocab, pairs = models.BPE.read_file(str(file), str(merges))
        library = tokenizers.Tokenizer(models.BPE(vocab, pairs))
    space = bool(config.get("add_prefix_space", False))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    library.decoder = decoders.ByteLevel()
    return json.loads(library.to_str())


def _lines(file: Path) -> list[str]:
    # Not splitlines: some pieces are characters that it takes for line ends.
    text = read_bytes(file).decode("utf-8-sig").removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def _warn_of_a_cut(file: Path, vocabulary: Sequence[str]) -> None:
    """Logs what lets a vocab.txt look cut off, as nothing beside it says what it should hold."""
    size = _read_object(file.parent / "config.json").get("vocab_size")
    if isinstance(size, int) and size > len(vocabulary) + PADDING:
        log.warning("%s has %d pieces and the model beside it %d: is it cut off?",
                    file, len(vocabulary), size)  # fmt: skip
    elif not file.read_bytes().endswith(b"\n"):
        log.warning("%s does not end its last line: is it cut off after %r?",
                    file, vocabulary[-1])  # fmt: skip


def _read_vocab_txt(
    file: Path, config: Mapping[str, Any], lower_case: bool | None
) -> dict[str, Any]:
    _refuse_slow(config, _OF_VOCAB_TXT, file.name)
    try:
        vocabulary = _lines(file)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file.name} is not UTF-8 text (byte {error.start})") from error
    if not vocabulary:
        raise UsageError(f"{file.name} is empty")
    _warn_of_a_cut(file, vocabulary)
    if config.get("do_basic_tokenize") is False:
        raise UsageError(f"do_basic_tokenize=false cannot be followed; {CURE}")
    if config.get("never_split"):
        raise UsageError(f"never_split={config['never_split']} cannot be followed; {CURE}")
    special = set(_tokens(config).values())
    unknown = _tokens(config).get("unk_token", "[UNK]")
    if unknown not in vocabulary and "<unk>" in vocabulary:
        unknown = "<unk>"
    words = [p for p in vocabulary if p not in special and not re.fullmatch(r"\[.*\]|<.*>", p)]
    if lower_case is None:
        lower_case = config.get("do_lower_case")
    accents = config.get("strip_accents")
    if lower_case is None:
        cased = next((piece for piece in words if piece != piece.lower()), None)
        lower_case = cased is None
        if accents is None and lower_case:
            accents = not any(map(_has_accent, words))
        log.info(
            "%-11s read as lower_case=%s, strip_accents=%s, as its pieces are: %s", "tokenizer",
            lower_case, bool(accents), cased or "no capitals",
        )  # fmt: skip
    return bert_state(
        vocabulary,
        lower_case=lower_case,
        strip_accents=lower_case if accents is None else accents,
        chinese=_either(config, True, "tokenize_chinese_chars", "handle_chinese_chars"),
        unknown=unknown,
        prefix=config.get("wordpieces_prefix") or "##",
    )


def _either(config: Mapping[str, Any], default: bool, *names: str) -> bool:
    values = [config[name] for name in names if config.get(name) is not None]
    return values[0] if values else default


def _has_accent(piece: str) -> bool:
    """Whether taking off accents would change a piece, and leave some of it."""
    spelt = unicodedata.normalize("NFD", piece)
    marks = [unicodedata.category(character) == "Mn" for character in spelt]
    return any(marks) and unicodedata.normalize("NFC", spelt) != spelt


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that a config names: text, or an object with it."""
    tokens = {}
    for name, value in config.items():
        if name.endswith("_token") and value:
            tokens[name] = value["content"] if isinstance(value, Mapping) else value
    return {name: token for name, token in tokens.items() if isinstance(token, str)}


def _with_added_tokens(
    state: dict[str, Any], folder: Path, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The state with the tokens that other files add to it.

    Raises:
      UsageError: one would get another id than they say.
    """
    wanted: list[tuple[int | None, str, bool]] = [
        (id, content, False) for content, id in _read_object(folder / "added_tokens.json").items()
    ]
    for id, token in (config.get("added_tokens_decoder") or {}).items():
        wanted.append((int(id), token["content"], bool(token.get("special", True))))
    more = _read_object(folder / "special_tokens_map.json")
    for source in (config, more):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            tokens = source.get(name) or []
            tokens = tokens.values() if isinstance(tokens, Mapping) else tokens
            for token in tokens:
                content = token["content"] if isinstance(token, Mapping) else token
                wanted.append((None, content, True))
    known = library_of(state).get_vocab(with_added_tokens=True)
    added = {token["content"] for token in state.get("added_tokens") or []}
    for id, content, special in sorted(wanted, key=lambda x: (x[0] is None, x[0] or 0)):
        if content in added:
            continue
        before = known.get(content)
        state = with_token(state, content, special)
        token = state["added_tokens"][-1]
        token["id"] = token["id"] if before is None else before
        if id is not None and token["id"] != id:
            raise UsageError(
                f"the added token {content} would have the id {token['id']}, not {id}; {CURE}"
            )
        known[content] = token["id"]
        added.add(content)
    return state


def _with_roles(
    state: dict[str, Any], folder: Path, config: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    if unknown := set(given) - set(ROLES):
        raise UsageError(f"no special token is called {min(unknown)!r} ({', '.join(ROLES)})")
    if empty := [role for role, token in given.items() if not token]:
        raise UsageError(f"--special-token {empty[0]}: give ROLE=TOKEN, such as mask=[MASK]")
    known = library_of(state).get_vocab(with_added_tokens=True)
    named = {**_tokens(_read_object(folder / "special_tokens_map.json")), **_tokens(config)}
    roles = {}
    for role in ROLES:
        for token in _candidates(role, state, named, known):
            roles[role] = token
            break
        if role in given:
            roles[role] = given[role]
    if missing := [role for role in ROLES if role not in roles and role != "unk"]:
        raise UsageError(
            f"nothing says which token is {', '.join(missing)}: name it with "
            + " ".join(f"--special-token {role}=TOKEN" for role in missing)
            + ", a new one is added"
        )
    for token in roles.values():
        if token not in known:
            state = with_token(state, token)
            known[token] = state["added_tokens"][-1]["id"]
    return state, roles


def _candidates(
    role: str, state: Mapping[str, Any], named: Mapping[str, str], known: Mapping[str, int]
) -> Iterator[str]:
    """Tokens that may have a role, the likeliest first."""
    if f"{role}_token" in named:
        yield named[f"{role}_token"]
    if role == "unk":
        model = state["model"]
        if model.get("unk_token"):
            yield model["unk_token"]
        elif model.get("unk_id") is not None:
            yield model["vocab"][model["unk_id"]][0]
    other = {"cls": "bos_token", "sep": "eos_token"}.get(role, "")
    if other in named:
        yield named[other]
    yield from _in_template(role, state)
    yield from (name for name in _NAMES[role] if name in known)


def _in_template(role: str, state: Mapping[str, Any]) -> Sequence[str]:
    """The first token of a post-processor's row for [CLS], and the last for [SEP]."""
    processor = state.get("post_processor") or {}
    for one in processor.get("processors") or [processor]:
        if role in ("cls", "sep") and one.get("type") in ("BertProcessing", "RobertaProcessing"):
            return [one[role][0]]
        if one.get("type") == "TemplateProcessing" and role in ("cls", "sep"):
            end = one["single"][0 if role == "cls" else -1]
            return [end["SpecialToken"]["id"]] if "SpecialToken" in end else []
    return []


def _roles_of_model(content: bytes) -> dict[str, str]:
    """The special tokens of a SentencePiece model, in the names of tokenizer_config.json."""
    proto = read_model(content)
    names = {"pad": "pad", "unk": "unk", "cls": "bos", "sep": "eos"}
    pieces = {f"{n}_token": i for n, i in (
        (role, getattr(proto.trainer_spec, f"{theirs}_id")) for role, theirs in names.items()
    ) if i >= 0}  # fmt: skip
    return {name: proto.pieces[index].piece for name, index in pieces.items()}
