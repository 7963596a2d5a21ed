"""The text of a compiled program: its computations, and how often each of them runs."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}  # others end in their bits

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
# "%name = shape opcode(operands), attributes"; a tuple's shape is in parentheses.
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ON_CHIP = re.compile(r"S\([1-9]\)")  # in a layout: not in a TPU's HBM


class Shape(NamedTuple):
    """An array's element type and dimensions."""

    dtype: str
    dimensions: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Of an element."""
        bits = BITS.get(self.dtype)
        # f32, bf16, s8, f8e4m3fn, …: the first number is the width.
        return int(re.findall(r"\d+", self.dtype)[0]) if bits is None else bits

    @property
    def bytes(self) -> int:
        """Of the whole array."""
        return math.prod(self.dimensions) * self.bits // 8


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    opcode: str
    rest: str  # from the operands on
    root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions, of the same computation, that it reads."""
        return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

    @property
    def source(self) -> str:
        """The operation of the model it comes from, as far as the compiler says."""
        match = re.search(r'op_name="([^"]*)"', self.rest)
        return match[1] if match else ""

    def arrays(self) -> tuple[Shape, ...]:
        """The arrays that it makes."""
        return tuple(
            Shape(dtype, tuple(int(n) for n in dimensions.split(",") if n))
            for dtype, dimensions, _ in _ARRAY.findall(self.shape)
        )

    def on_chip(self) -> tuple[bool, ...]:
        """Which of its arrays are kept on the chip, and not in the device's memory."""
        return tuple(bool(_ON_CHIP.search(layout)) for _, _, layout in _ARRAY.findall(self.shape))


class Program(NamedTuple):
    """A compiled program."""

    computations: dict[str, list[Instruction]]
    times: dict[str, int]  # that each runs in one execution; negative if unknown


def parse_program(hlo: str) -> Program:
    """A program from the text of its optimized HLO module (`compiled.as_text()`).

    Raises:
      ValueError: it is no HLO module.
    """
    computations = _computations(hlo)
    return Program(computations, _times(computations, _entry(hlo)))


def _entry(hlo: str) -> str:
    match = re.search(r"^ENTRY %?([\w.\-]+)", hlo, re.MULTILINE)
    if match is None:
        raise ValueError("no ENTRY computation: this is no HLO module")
    return match[1]


def _computations(hlo: str) -> dict[str, list[Instruction]]:
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in hlo.splitlines():
        if line[:1] not in (" ", "}", ""):
            match = _COMPUTATION.match(line)
            if match:
                current = computations.setdefault(match[1], [])
            continue
        match = _INSTRUCTION.match(line)
        if match:
            root, name, shape, opcode, rest = match.groups()
            current.append(Instruction(name, shape, opcode, rest, bool(root)))
    return computations


def called(instruction: Instruction) -> Iterator[tuple[str, str]]:
    """The computations that an instruction names: (attribute, computation) pairs."""
    for match in _CALLED.finditer(instruction.rest):
        for name in match[2].strip("{}").split(","):
            yield match[1], name.strip().removeprefix("%")


def _times(computations: dict[str, list[Instruction]], entry: str) -> dict[str, int]:
    """The number of times that each computation runs; negative if unknown."""
    times = dict.fromkeys(computations, 0)

    def run(name: str, count: int) -> None:
        times[name] = -1 if count < 0 or times[name] < 0 else times[name] + count
        for instruction in computations[name]:
            trips = 1
            if instruction.opcode == "while":
                trips = _trips(instruction, computations)
            for attribute, inner in called(instruction):
                # What a reduction applies to two elements is arithmetic: nothing is sent there.
                if attribute != "to_apply" or instruction.opcode == "call":
                    run(inner, -1 if count < 0 or trips < 0 else count * trips)

    run(entry, 1)
    return times


def _trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Trips of a loop: said by the compiler, or what a counter from 0 is compared with; else -1."""
    known = _TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = dict(called(loop))["condition"]
    instructions = computations[condition]
    constants = {
        i.name: int(match[1])
        for i in instructions
        if i.opcode == "constant" and (match := re.match(r"(\d+)\)", i.rest))
    }
    for i in instructions:
        if i.opcode == "compare" and "direction=LT" in i.rest:
            for operand in re.findall(r"%?([\w.\-]+)", i.rest.partition(")")[0]):
                if operand in constants:
                    return constants[operand]
    return -1
