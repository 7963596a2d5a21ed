"""How vectors are made of texts, in the files that sentence-transformers puts beside a model.

`modules.json` lists the modules that follow the encoder, `1_Pooling/config.json` says how its
tokens are pooled, `sentence_bert_config.json` how many of them a text may have.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

from electra_jax.errors import UsageError
from electra_jax.system.json_files import read_json, read_object, reading

log = logging.getLogger(__name__)

MODULES_FILE = "modules.json"
POOLING_FILE = "1_Pooling/config.json"
LENGTH_FILE = "sentence_bert_config.json"
# Ours, by the names of one of its flags and of a value of `pooling_mode`, which newer files have.
MODES = {"cls": ("pooling_mode_cls_token", "cls"), "mean": ("pooling_mode_mean_tokens", "mean")}
PREFIX = "sentence_transformers.models."
FOLLOWED = ("Transformer", "Pooling", "Normalize")


class SentenceVectors(NamedTuple):
    """How a model makes a vector of a text; unit vectors in any case.

    Attributes:
      pooling: "cls" or "mean"; "" if it is not known.
      length: tokens of a text at most; 0 if it is not known.
    """

    pooling: str = ""
    length: int = 0


def read_sentence_vectors(folder: Path) -> SentenceVectors:
    """Reads what is known; warns of what cannot be followed.

    Raises:
      UsageError: a file is damaged.
    """
    length = 0
    if (folder / LENGTH_FILE).exists():
        with reading(folder / LENGTH_FILE):
            length = int(read_object(folder / LENGTH_FILE).get("max_seq_length") or 0)
    if not (folder / POOLING_FILE).exists():
        return SentenceVectors("", length)
    content = read_object(folder / POOLING_FILE)
    modes = {
        name for name, on in content.items() if name.startswith("pooling_mode_") and on is True
    }
    known = [
        ours
        for ours, (flag, mode) in MODES.items()
        if modes == {flag} or content.get("pooling_mode") == mode
    ]
    if not known:
        log.warning("%s pools in a way that is not known here: vectors are means", folder)
    for kind in _modules(folder):
        if kind not in FOLLOWED:
            log.warning("%s has a module %s, which vectors are made without", folder, kind)
    return SentenceVectors(known[0] if known else "", length)


def write_sentence_vectors(folder: Path, vectors: SentenceVectors, hidden: int) -> None:
    """Writes the files for an encoder of this width; none if its pooling is not known."""
    if not vectors.pooling:
        return
    (folder / POOLING_FILE).parent.mkdir(exist_ok=True)
    flags = {flag: ours == vectors.pooling for ours, (flag, _) in MODES.items()}
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}" if index else "",
         "type": PREFIX + kind}
        for index, kind in enumerate(FOLLOWED)
    ]  # fmt: skip
    contents = {
        MODULES_FILE: modules,
        POOLING_FILE: {"word_embedding_dimension": hidden, **flags},
        LENGTH_FILE: {"max_seq_length": vectors.length, "do_lower_case": False},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _modules(folder: Path) -> list[str]:
    """The kinds of the modules that are listed."""
    try:
        with reading(folder / MODULES_FILE):
            modules = read_json(folder / MODULES_FILE)
            return [module["type"].rpartition(".")[2] for module in modules]
    except UsageError:
        return []
