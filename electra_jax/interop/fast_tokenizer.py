"""Our tokenizers as the `tokenizer.json` that the transformers library loads.

Its ids are ours on any text, as both are the same object of the tokenizers library, but that
special tokens in the text become special tokens there, as users of that library expect.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from electra_jax.data.tokenizer import Tokenizer
from electra_jax.data.tokenizer_state import library_of, steps


def save_fast_tokenizer(
    tokenizer: Tokenizer, folder: Path, max_tokens: int, types: bool = False
) -> None:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
      tokenizer: which.
      folder: is there.
      max_tokens: that a row of the model takes.
      types: whether its model tells the two texts of a pair apart by token types.
    """
    state = fast_state(tokenizer)
    content = json.dumps(state, ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(content, "utf-8")
    roles = {f"{role}_token": token for role, token in tokenizer.roles.items()}
    config = {
        # Its code leaves the file as it is; other classes make the tokenizer anew.
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
    # Without it, the transformers library would turn the setting off.
    step = state.get("pre_tokenizer") or {}
    if "add_prefix_space" in step:
        config["add_prefix_space"] = step["add_prefix_space"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(roles, indent=2) + "\n", "utf-8")


def fast_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer as an object of the tokenizers library, with [CLS] A [SEP] B [SEP]."""
    return tokenizers.Tokenizer.from_str(json.dumps(fast_state(tokenizer)))


def fast_state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of its tokenizer.json: special tokens are registered, rows are ours."""
    state = tokenizer.state()
    special = set(tokenizer.roles.values())
    added = [t for t in state.get("added_tokens") or [] if t["content"] not in special]
    known = {t["content"]: t for t in state.get("added_tokens") or []}
    ids = library_of(state).get_vocab(with_added_tokens=True)
    for token in sorted(special, key=ids.__getitem__):
        default = {
            "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False,
        }  # fmt: skip
        added.append({**default, **known.get(token, {}), "id": ids[token], "special": True})
    cls, sep = tokenizer.roles["cls"], tokenizer.roles["sep"]
    row = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=list({cls: tokenizer.cls_id, sep: tokenizer.sep_id}.items()),
    )
    processor: Any = row
    if any(step["type"] == "ByteLevel" for step in steps(state, "pre_tokenizer")):
        # Offsets without the space before a word.
        processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), row])
    return {
        **state,
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": json.loads(processor.__getstate__()),
    }
