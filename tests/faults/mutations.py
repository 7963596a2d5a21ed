"""Damage to a file's content: what disks, copies, programs and people do to it."""

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

DEEP = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, -(2**63), 0.5, "", "x", "\ud800",
    "a\nb", [], {}, [[]], [None], {"": None}, ["a", 1], "x" * 100_000,
]  # fmt: skip
LITERALS = [DEEP, "1e400", "-1e400", "NaN", "Infinity", '{"a":' * 100_000, "1" * 5000]
SNIPPETS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b"'", b",", b"\t", b"{",
    b"}", b"[", b"]", b"\xc2\xa0", b"\xed\xa0\x80", b"PK\x03\x04", b"\x1f\x8b", b"PAR1", b"NaN",
    b"-1", b"0", b"1e400", b"9" * 5000, b"[" * 2000, b"x" * 100_000, b"\xe2\x80\xa8", b"#",
]  # fmt: skip
EXTREMES = [0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1]


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + int(2 ** rng.uniform(0, 12)))


def leave_out(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:end] * rng.choice([1, 1, 3, 50]) + content[end:]


def zero(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.choice(SNIPPETS) + content[start:]


def replace_with(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.choice(SNIPPETS) + content[min(end, start + 8) :]


def put_number(content: bytes, rng: random.Random) -> bytes:
    kind = rng.choice(["<q", "<i", "<h", ">q", ">i"])
    size = struct.calcsize(kind)
    value = rng.choice(EXTREMES) % 2 ** (8 * size - 1)
    start = rng.randrange(max(1, len(content) - size + 1))
    return content[:start] + struct.pack(kind, value) + content[start + size :]


def move(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    rest = content[:start] + content[end:]
    to = rng.randrange(len(rest) + 1)
    return rest[:to] + content[start:end] + rest[to:]


def empty(content: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\n", b"\0" * len(content), rng.randbytes(64), content * 2])


BYTES: list[Mutation] = [
    flip_bits, flip_bits, cut_off, leave_out, repeat, zero, overwrite, insert, replace_with,
    put_number, move, empty,
]  # fmt: skip


def damage(content: bytes, rng: random.Random) -> bytes:
    """Some damage, or two kinds of it."""
    for _ in range(rng.choice([1, 1, 1, 2])):
        content = rng.choice(BYTES)(content, rng)
    return content


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in JSON, or a key that is missing, doubled or called otherwise.

    Half of the records with a checksum lose it, as those that a person edits.
    """
    if rng.random() < 0.3:
        return damage(content, rng)
    lines = content.split(b"\n")
    with contextlib.suppress(ValueError):  # one value, or one a line
        return _damage_value(json.loads(content), rng)
    index = rng.randrange(len(lines))
    with contextlib.suppress(ValueError):
        lines[index] = _damage_value(json.loads(lines[index]), rng)
    return b"\n".join(lines)


def _damage_value(value: Any, rng: random.Random) -> bytes:
    if isinstance(value, dict) and "checksum" in value and rng.random() < 0.7:
        del value["checksum"]
    places = list(_places(value))
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    literal = ""
    for _ in range(rng.choice([1, 1, 1, 3])):
        parent, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind == 0 and isinstance(parent, dict):
            parent.pop(key, None)
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key, None)
        elif kind == 2:
            literal = rng.choice(LITERALS)
            parent[key] = "LITERAL"
        elif kind == 3:
            parent[key] = [parent[key]] if key in _keys(parent) else []
        elif kind == 4:
            other, its_key = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[its_key])) if its_key in _keys(other) else 0
        else:
            parent[key] = rng.choice(VALUES)
        if kind in (0, 1, 4):
            places = list(_places(value)) or [(value, "x")] if isinstance(value, dict) else places
    text = json.dumps(value)
    return text.replace('"LITERAL"', literal or "0").encode()


def _keys(parent: Any) -> Any:
    return parent if isinstance(parent, dict) else range(len(parent))


def _places(value: Any, most: int = 5000) -> list[tuple[Any, Any]]:
    """(list or object, index or key) of the values within a value."""
    found, new = [], [value]
    while new and len(found) < most:
        parent = new.pop()
        if isinstance(parent, dict | list):
            keys = list(parent) if isinstance(parent, dict) else range(len(parent))
            found += [(parent, key) for key in keys]
            new += [parent[key] for key in keys]
    return found


def damage_zip(content: bytes, rng: random.Random) -> bytes:
    """An archive with an entry that was damaged before it was put there, or a damaged archive."""
    if rng.random() < 0.3:
        return damage(content, rng)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            entry = old.read(name)
            packed = rng.random() < 0.05
            new.writestr(
                name,
                damage(entry, rng) if name == chosen else entry,
                zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED,
            )
    return written.getvalue()


def damage_safetensors(content: bytes, rng: random.Random) -> bytes:
    """A file with another header, or a damaged one."""
    if rng.random() < 0.3:
        return damage(content, rng)
    size = int.from_bytes(content[:8], "little")
    header = damage_json(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def inside(compress: Callable[[bytes], bytes], plain: bytes, kind: Mutation) -> Mutation:
    """Damage to a compressed file, or to its content before it was compressed."""

    def mutate(content: bytes, rng: random.Random) -> bytes:
        return damage(content, rng) if rng.random() < 0.5 else compress(kind(plain, rng))

    return mutate


def damage_sentencepiece(content: bytes, rng: random.Random) -> bytes:
    """A model with other fields, or a damaged one."""
    from sentencepiece import sentencepiece_model_pb2

    if rng.random() < 0.3:
        return damage(content, rng)
    model: Any = sentencepiece_model_pb2.ModelProto.FromString(content)  # type: ignore[attr-defined]
    for _ in range(rng.choice([1, 1, 2])):
        piece = rng.choice(model.pieces)
        kind = rng.randrange(8)
        if kind == 0:
            piece.piece = rng.choice(
                ["", "\0", "x" * 5000, " ", "\n", rng.choice(model.pieces).piece]
            )
        elif kind == 1:
            piece.score = rng.choice([float("nan"), float("inf"), -float("inf"), 1e30, 0.0])
        elif kind == 2:
            piece.type = rng.randrange(1, 7)
        elif kind == 3:
            name = rng.choice(["unk_id", "bos_id", "eos_id", "pad_id"])
            setattr(model.trainer_spec, name, rng.choice([-1, 0, 7, 10**6, 2**31 - 1, -(2**31)]))
        elif kind == 4:
            model.trainer_spec.model_type = rng.randrange(1, 5)
        elif kind == 5:
            rules = model.normalizer_spec.precompiled_charsmap
            model.normalizer_spec.precompiled_charsmap = damage(rules, rng)
        elif kind == 6:
            del model.pieces[rng.randrange(len(model.pieces)) :: rng.choice([1, 50])]
            if not model.pieces:
                break
        else:
            name = rng.choice(["byte_fallback", "treat_whitespace_as_suffix", "split_by_number"])
            setattr(model.trainer_spec, name, rng.random() < 0.5)
    return model.SerializeToString()


def damage_arrays(content: bytes, rng: random.Random) -> bytes:
    """A table of rows with other numbers, and the checksum that goes with them."""
    if rng.random() < 0.3:
        return damage(content, rng)
    line, arrays = content.split(b"\n", 1)
    header, body = json.loads(line), bytearray(arrays)
    for _ in range(rng.choice([1, 3])):
        at = 8 * rng.randrange(len(body) // 8)
        value = rng.choice([*EXTREMES, -5]) if rng.random() < 0.5 else rng.randrange(40)
        body[at : at + 8] = struct.pack("<q", value)
    if rng.random() < 0.3:
        header["lengths"][rng.choice(list(header["lengths"]))] = rng.choice(VALUES)
    header["crc32"] = zlib.crc32(body)
    return json.dumps(header).encode() + b"\n" + bytes(body)
