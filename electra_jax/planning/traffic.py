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
VIEWS = ("bitcast", "convert", "copy", "reshape", "transpose")  # an element for each element
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
        return _read_by_fusion(program, inner, sizes) + _written_by_fusion(inner, i)
    return sum(sizes) + (0.0 if i.opcode.endswith("-start") else _size(i))


def _read_by_fusion(program: Program, inner: list[Instruction], sizes: list[float]) -> float:
    """Bytes of its operands, or of the slices of them if it reads nothing else."""
    return sum(
        _read(program, inner, i.name, sizes[int(i.rest.partition(")")[0])])
        for i in inner
        if i.opcode == "parameter"
    )


def _read(program: Program, inner: list[Instruction], name: str, size: float) -> float:
    """Bytes that a fusion reads of an array of `size` bytes, which it has as `name`."""
    total = 0.0
    for i in inner:
        if name not in i.operands:
            continue
        if i.opcode in SLICES:
            total += sum(shape.bytes for shape in i.arrays())
        elif i.opcode in VIEWS:
            total += _read(program, inner, i.name, size)
        elif i.opcode == "fusion":
            within = program.computations[dict(called(i))["calls"]]
            here = {f"{index})" for index, o in enumerate(i.operands) if o == name}
            parameters = [
                p for p in within if p.opcode == "parameter" and p.rest.split(",")[0] in here
            ]
            total += sum(_read(program, within, p.name, size) for p in parameters)
        elif i.opcode != "dynamic-update-slice" or i.operands[0] != name:
            total += size
    return min(total, size)


def _written_by_fusion(inner: list[Instruction], fusion: Instruction) -> float:
    """Bytes of its results, or of what it updates in place."""
    block = {i.name: i for i in inner}
    root = next(i for i in inner if i.root)
    arrays = fusion.arrays()
    parts = root.opcode == "tuple"
    makers = [block[o] for o in root.operands] if parts else [root] * len(arrays)
    made = zip(makers, arrays, fusion.on_chip(), strict=True)
    return float(sum(_written(block, i, shape) for i, shape, on_chip in made if not on_chip))


def _written(block: dict[str, Instruction], i: Instruction, shape: Shape) -> int:
    while i.opcode in VIEWS:
        i = block[i.operands[0]]
    if i.opcode != "dynamic-update-slice":
        return shape.bytes
    return min(shape.bytes, sum(x.bytes for x in block[i.operands[1]].arrays()))


def _size(i: Instruction) -> float:
    made = zip(i.arrays(), i.on_chip(), strict=True)
    return float(sum(shape.bytes for shape, on_chip in made if not on_chip))
