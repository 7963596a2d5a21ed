"""What a compiled program reads from memory and writes to it, and what it multiplies.

Counted instruction by instruction: fusions and kernels read their operands and write their results
once, loops do so on each trip, slices move what they cut out. Arrays that the compiler keeps on
the chip cost nothing. A TPU's caches, padding and repeated reads within a fusion are not
counted: it is a lower bound that two programs can be compared by.
"""

from collections.abc import Iterator
from typing import NamedTuple

from electra_jax.planning.hlo import Instruction, Program, Shape, called, parse_program

# Names for what is there, and waits for what has been counted where it began.
FREE = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "iota", "copy-done", "send-done",
    "recv-done", "async-done", "async-update",
))  # fmt: skip
SLICES = ("slice", "dynamic-slice", "gather")
PRODUCTS = ("dot", "convolution")


class Product(NamedTuple):
    """A matrix product of a program, on one device."""

    operands: tuple[Shape, ...]
    result: Shape
    times: int  # that it runs in a step
    source: str


def memory_traffic(hlo: str) -> float:
    """Bytes that one device reads from its memory and writes to it in one execution.

    Args:
      hlo: the text of the optimized HLO module (`compiled.as_text()`).
    """
    program = parse_program(hlo)
    return sum(
        abs(program.times[name]) * sum(_bytes(program, block, i) for i in block.values())
        for name, block in _outside_fusions(program)
    )


def read_products(hlo: str) -> list[Product]:
    """The matrix products of a program, those within fusions among them."""
    program = parse_program(hlo)
    found = []
    for name, instructions in program.computations.items():
        block = {i.name: i for i in instructions}
        for i in instructions:
            if i.opcode in PRODUCTS and program.times[name]:
                operands = tuple(shape for o in i.operands for shape in block[o].arrays())
                found.append(Product(operands, i.arrays()[0], abs(program.times[name]), i.source))
    return found


def count_products(hlo: str) -> dict[str, int]:
    """How often a step multiplies matrices, by the wider of the two dtypes: {"bf16": 1234}."""
    found: dict[str, int] = {}
    for product in read_products(hlo):
        widest = max(product.operands, key=lambda shape: shape.bits).dtype
        found[widest] = found.get(widest, 0) + product.times
    return found


def _outside_fusions(program: Program) -> Iterator[tuple[str, dict[str, Instruction]]]:
    """The computations whose instructions read and write memory, by name of instruction."""
    inside = {
        name
        for block in program.computations.values()
        for i in block
        if i.opcode not in ("while", "conditional", "call")
        for _, name in called(i)
    }
    for name, block in program.computations.items():
        if name not in inside and program.times[name]:
            yield name, {i.name: i for i in block}


def _bytes(program: Program, block: dict[str, Instruction], i: Instruction) -> float:
    if i.opcode in FREE:
        return 0.0
    sizes = [_size(block[o]) for o in i.operands if o in block]
    if i.opcode in SLICES:
        return 2.0 * _size(i)
    if i.opcode == "dynamic-update-slice":
        return 2.0 * sizes[1]
    if i.opcode == "fusion":
        inner = program.computations[dict(called(i))["calls"]]
        return _read_by_fusion(inner, sizes) + _written_by_fusion(inner, _size(i))
    return sum(sizes) + (0.0 if i.opcode.endswith("-start") else _size(i))


def _read_by_fusion(inner: list[Instruction], sizes: list[float]) -> float:
    """Bytes of its operands, or of the slices of them if it reads nothing else."""
    total = 0.0
    for parameter in inner:
        if parameter.opcode != "parameter":
            continue
        size = sizes[int(parameter.rest.partition(")")[0])]
        readers = [i for i in inner if parameter.name in i.operands]
        if readers and all(i.opcode in SLICES for i in readers):
            size = min(size, sum(shape.bytes for i in readers for shape in i.arrays()))
        elif readers and all(_updates(i, parameter.name) for i in readers):
            size = 0.0
        total += size
    return total


def _written_by_fusion(inner: list[Instruction], size: float) -> float:
    """Bytes of its result, or of what it updates in place."""
    root = next(i for i in inner if i.root)
    if root.opcode != "dynamic-update-slice":
        return size
    update = next(i for i in inner if i.name == root.operands[1])
    return min(size, sum(shape.bytes for shape in update.arrays()))


def _updates(i: Instruction, name: str) -> bool:
    """True if it writes a slice of that array in its place."""
    return i.opcode == "dynamic-update-slice" and i.operands[0] == name


def _size(i: Instruction) -> float:
    return float(sum(shape.bytes for shape in i.arrays(on_chip=False)))
