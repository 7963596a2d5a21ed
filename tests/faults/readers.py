"""Every reader of files: what makes good ones, what reads them, and how they are damaged."""

import bz2
import functools
import gzip
import json
import lzma
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from fuzzing import Reader
from mutations import (
    Mutation,
    damage,
    damage_arrays,
    damage_json,
    damage_safetensors,
    damage_sentencepiece,
    damage_zip,
    inside,
)

from electra_jax.config import FinetuneConfig
from electra_jax.data.collection import read_collection
from electra_jax.data.documents import Documents
from electra_jax.data.labelled import read_rows
from electra_jax.data.minimal_pairs import read_minimal_pairs
from electra_jax.data.mixture import Mixture
from electra_jax.data.sampler import DataConfig
from electra_jax.data.token_store import TokenStore, prepare
from electra_jax.data.tokenizer import load_tokenizer
from electra_jax.data.tokenizer_training import train_tokenizer
from electra_jax.inference.finetuned import read_task
from electra_jax.interop import huggingface, tensorflow1
from electra_jax.interop.fast_tokenizer import save_fast_tokenizer
from electra_jax.interop.sentence_transformers import read_sentence_vectors, write_sentence_vectors
from electra_jax.run_directory import read_any_config
from electra_jax.training.metrics import read_metrics

FORMATS = Path(__file__).parent.parent / "golden" / "formats-0.1.tar.xz"
TEXTS = [
    f"Document number {n} speaks of {'cats and dogs ' * (n % 9)}, Größe and 東京."
    for n in range(200)
]
QUESTION = "Where do cats of the number 7 speak of dogs?"


def golden(part: str, folder: Path) -> None:
    """What version 0.1 wrote."""
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(FORMATS) as archive:
            archive.extractall(unpacked, filter="data")
        shutil.copytree(Path(unpacked) / part, folder, dirs_exist_ok=True)


# --- tokenizers ---


@functools.cache
def wordpiece() -> Any:
    return train_tokenizer(TEXTS, kind="wordpiece", vocab_size=150)


def read_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode([QUESTION, ""])
    tokenizer.decode(ids[0]), tokenizer.continuation(), tokenizer.offsets(QUESTION)
    assert max(ids[0], default=0) < tokenizer.vocab_size


def vocab_txt(folder: Path) -> None:
    wordpiece().save(folder)
    (folder / "electra_jax_tokenizer.json").unlink()


def library_json(model: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        kinds = {
            "bpe": (models.BPE(), trainers.BpeTrainer),
            "unigram": (models.Unigram(), trainers.UnigramTrainer),
            "wordlevel": (models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer),
            "wordpiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
        }
        empty, trainer = kinds[model]
        library = tokenizers.Tokenizer(empty)
        if model == "unigram":
            library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
            library.pre_tokenizer = pre_tokenizers.Metaspace()
            library.decoder = decoders.Metaspace()
        elif model == "bpe":
            library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            library.decoder = decoders.ByteLevel()
        else:
            library.normalizer = normalizers.BertNormalizer()
            library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        options = {"unk_token": "[UNK]"} if model == "unigram" else {}
        library.train_from_iterator(
            TEXTS, trainer(vocab_size=300, special_tokens=special, show_progress=False, **options)
        )
        library.save(str(folder / "tokenizer.json"))
        names = ("pad", "unk", "cls", "sep", "mask")
        roles = {f"{name}_token": t for name, t in zip(names, special, strict=True)}
        decoder = {str(i): {"content": t, "special": True} for i, t in enumerate(special)}
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True, **roles,
                  "added_tokens_decoder": decoder, "add_prefix_space": False}  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "special_tokens_map.json").write_text(json.dumps(roles))
        (folder / "added_tokens.json").write_text("{}")

    return make


def byte_pairs(folder: Path) -> None:
    library_json("bpe")(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "RobertaTokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)


@functools.cache
def sentencepiece_model(kind: str) -> bytes:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, model_type=kind, vocab_size=150,
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, control_symbols=["[MASK]"], minloglevel=2,
        pad_piece="[PAD]", unk_piece="[UNK]", bos_piece="[CLS]", eos_piece="[SEP]",
        hard_vocab_limit=False,
    )  # fmt: skip
    return model.getvalue()


def bare_sentencepiece(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "spiece.model").write_bytes(sentencepiece_model(kind))

    return make


def saved_sentencepiece(folder: Path) -> None:
    from electra_jax.data.tokenizer import SentencePieceTokenizer

    tokenizer = SentencePieceTokenizer(
        sentencepiece_model("unigram"), kind="unigram", lower_case=False
    )
    tokenizer.save(folder)


# --- token stores ---


def store(folder: Path) -> None:
    prepared = folder.with_name(f"{folder.name}-store")
    prepare(TEXTS, wordpiece(), prepared, workers=1, validation_share=0.1, progress=False)
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    shutil.rmtree(prepared)


def read_store(folder: Path) -> None:
    mixture = Mixture.open(str(folder))
    mixture.unigram_entropy, mixture.stores[0].describe_unknown()
    for layout in ("packed", "pair"):
        config = DataConfig(store=str(folder), layout=layout, length=32)
        sampler = mixture.sampler("train", config, 16, seed=0)
        for step in (0, 10**9):
            assert sampler.batch(step)["tokens"].max() < mixture.tokenizer.vocab_size


def verify_store(folder: Path) -> None:
    TokenStore.open(folder).verify()


# --- models ---


def published(folder: Path) -> None:
    golden("exported", folder)
    for file in folder.rglob("electra_jax_tokenizer.json"):
        file.unlink()


def in_torch(folder: Path) -> None:
    """The same weights as PyTorch writes them, in two files and an index."""
    import safetensors.numpy
    from torch_writing import write_torch

    published(folder)
    file = folder / "discriminator" / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    file.unlink()
    names = sorted(tensors)
    parts = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for part, inside_it in parts.items():
        write_torch(file.parent / part, {name: tensors[name] for name in inside_it})
    index = {"metadata": {}, "weight_map": {n: part for part, ns in parts.items() for n in ns}}
    (file.parent / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def modern(folder: Path) -> None:
    from tiny_encoder import make_model

    make_model(folder)
    write_sentence_vectors(folder, huggingface.SentenceVectors("mean", 30), 32)


def read_hugging_face(folder: Path) -> None:
    huggingface.is_hugging_face(folder)
    huggingface.read_model(folder)


def fast_tokenizer(folder: Path) -> None:
    save_fast_tokenizer(wordpiece(), folder, 128)


def tensorflow_checkpoint(folder: Path) -> None:
    import tensorflow as tf
    from interop.test_tensorflow1 import GENERATOR, MODEL, make_params, variables

    values = variables(make_params(MODEL, GENERATOR))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = [tf.compat.v1.get_variable(name, initializer=x) for name, x in values.items()]
        made.append(tf.compat.v1.get_variable("global_step", initializer=np.int64(7)))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(made).save(session, str(folder / "model.ckpt"))


def read_tensorflow(folder: Path) -> None:
    if tensorflow1.is_checkpoint(folder / "model.ckpt"):
        tensorflow1.read_checkpoint(folder / "model.ckpt")


def read_finetuned(folder: Path) -> None:
    config = read_any_config(folder)
    if isinstance(config, FinetuneConfig):
        read_task(config, folder)


# --- rows and text ---

ROWS = [
    {"text": f"row {n}, of cats", "label": ["yes", "no"][n % 2], "score": n / 7, "tags": ["A", "B"]}
    for n in range(40)
]
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Cats",
            "paragraphs": [
                {
                    "context": "Cats sleep on the mat.",
                    "qas": [
                        {
                            "id": str(n),
                            "question": "Where do cats sleep?",
                            "answers": [{"text": "on the mat", "answer_start": 11}],
                        }
                    ],
                }
            ],
        }
        for n in range(9)
    ],
}
CSV = "text,label\n" + "".join(f'"row {n}, of ""cats""",{n % 2}\n' for n in range(40))
CONLL = "-DOCSTART- O\n\n" + "".join(f"word{n} B-A\nof I-A\ncats O\n\n" for n in range(20))
CONTENTS: dict[str, tuple[bytes, Mutation]] = {
    "jsonl": ("".join(json.dumps(row) + "\n" for row in ROWS).encode(), damage_json),
    "json": (json.dumps(ROWS, indent=1).encode(), damage_json),
    "squad": (json.dumps(SQUAD).encode(), damage_json),
    "csv": (CSV.encode(), damage),
    "tsv": (CSV.replace('"', "").replace(", of", " of").replace(",", "\t").encode(), damage),
    "conll": (CONLL.encode(), damage),
    "lines": (CSV.encode(), damage),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
TEXT = "\n\n".join(TEXTS).encode()


def rows_of(kind: str) -> Reader:
    content, mutate = CONTENTS[kind]

    def read(folder: Path) -> None:
        for row in read_rows(f"{kind}:{folder}/rows", skip_broken=True):
            for column in row.fields:
                row.value(column)

    return Reader(lambda folder: _write(folder / "rows", content), read, {"rows": mutate})


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", row_group_size=20)


def read_parquet_both_ways(folder: Path) -> None:
    for _ in read_rows(f"parquet:{folder}/rows.parquet"):
        pass
    for _ in Documents([f"parquet:{folder}/rows.parquet"]):
        pass


def documents(ending: str) -> Reader:
    compress = COMPRESS.get(ending, bytes)

    def read(folder: Path) -> None:
        for _ in Documents([f"text:{folder}/text*"]):
            pass

    mutate = inside(compress, TEXT, damage) if ending else damage
    name = f"text{ending}"
    return Reader(lambda folder: _write(folder / name, compress(TEXT)), read, {name: mutate})


def json_documents(folder: Path) -> None:
    for _ in Documents([f"jsonl:{folder}/rows"]):
        pass


def pairs(folder: Path) -> None:
    rows = [
        {"sentence_good": f"The cat {n} sleeps.", "sentence_bad": f"The cat {n} sleep.",
         "UID": f"p{n % 3}", "linguistics_term": "agreement"} for n in range(30)
    ]  # fmt: skip
    _write(folder / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def collection(folder: Path) -> None:
    corpus = [{"_id": f"d{n}", "title": "Cats", "text": TEXTS[n]} for n in range(20)]
    queries = [{"_id": f"q{n}", "text": f"cats {n}"} for n in range(10)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        _write(folder / f"{name}.jsonl", lines.encode())
    judged = "".join(f"q{n}\td{n}\t{n % 3}\n" for n in range(10))
    _write(folder / "qrels" / "test.tsv", f"query-id\tcorpus-id\tscore\n{judged}".encode())


JSON = {"*.json": damage_json}
READERS: dict[str, Reader] = {
    "vocab.txt": Reader(vocab_txt, read_tokenizer, {"vocab.txt": damage}),
    "saved wordpiece": Reader(wordpiece().save, read_tokenizer, {"*": damage, **JSON}),
    "saved sentencepiece": Reader(saved_sentencepiece, read_tokenizer, {"*": damage, **JSON}),
    **{
        f"tokenizer.json, {kind}": Reader(library_json(kind), read_tokenizer, JSON)
        for kind in ("bpe", "unigram", "wordlevel", "wordpiece")
    },
    "exported tokenizer": Reader(fast_tokenizer, read_tokenizer, JSON),
    "vocab.json": Reader(byte_pairs, read_tokenizer, {"merges.txt": damage, **JSON}),
    **{
        f"{kind} model": Reader(
            bare_sentencepiece(kind), read_tokenizer, {"*.model": damage_sentencepiece}
        )
        for kind in ("unigram", "bpe")
    },
    "store": Reader(store, read_store, {"*.npy": damage, "tokenizer/*": damage}),
    "store's manifest": Reader(store, read_store, {"manifest.json": damage_json}),
    "store's rows": Reader(store, read_store, {"rows-*": damage_arrays}),
    "store, verified": Reader(store, verify_store, {"*": damage, "manifest.json": damage_json}),
    "config.json": Reader(
        lambda folder: golden("run", folder), read_any_config, {"config.json": damage_json}
    ),
    "config.json and task.json": Reader(
        lambda folder: golden("finetuned", folder),
        read_finetuned,
        {"config.json": damage_json, "task.json": damage_json},
    ),
    "metrics.jsonl": Reader(
        lambda folder: golden("run", folder), read_metrics, {"metrics.jsonl": damage_json}
    ),
    "model in safetensors": Reader(
        published,
        read_hugging_face,
        {"discriminator/config.json": damage_json, "generator/config.json": damage_json,
         "*.safetensors": damage_safetensors},
    ),
    "model in torch's files": Reader(
        in_torch, read_hugging_face, {"*.bin": damage_zip, "*.index.json": damage_json}
    ),
    "ModernBERT": Reader(
        modern, read_hugging_face, {"config.json": damage_json, "modules.json": damage_json,
                                    "sentence_bert_config.json": damage_json}
    ),
    "sentence-transformers": Reader(modern, read_sentence_vectors, JSON),
    "TensorFlow 1": Reader(
        tensorflow_checkpoint, read_tensorflow, {"*.index": damage, "*.data-*": damage}
    ),
    **{f"{kind} rows": rows_of(kind) for kind in CONTENTS},
    "parquet": Reader(parquet, read_parquet_both_ways, {"*.parquet": damage}),
    **{f"text{ending}": documents(ending) for ending in ("", *COMPRESS)},
    "jsonl documents": Reader(
        lambda folder: _write(folder / "rows", CONTENTS["jsonl"][0]), json_documents,
        {"rows": damage_json},
    ),
    "minimal pairs": Reader(
        pairs, lambda folder: read_minimal_pairs(f"{folder}/*.jsonl"), {"*.jsonl": damage_json}
    ),
    "collection": Reader(
        collection, lambda folder: read_collection(f"beir:{folder}"),
        {"*.jsonl": damage_json, "*.tsv": damage},
    ),
}  # fmt: skip
