"""The collectives of a compiled program, read from its HLO text."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}  # others end in their bits

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
# "%name = shape opcode(operands), attributes"; a tuple's shape is in parentheses.
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Shape(NamedTuple):
    """An array's element type and dimensions."""

    dtype: str
    dimensions: tuple[int, ...]

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype)
        if bits is None:
            # f32, bf16, s8, f8e4m3fn, …: the first number is the width.
            bits = int(re.findall(r"\d+", self.dtype)[0])
        return math.prod(self.dimensions) * bits // 8


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: of KINDS.
      group: devices that take part together.
      count: times it runs in a step, with the trips of the loops around it.
      shapes: of its results on one device (several where the compiler combined some).
      source: the operation of the model it comes from, as far as the compiler says.
    """

    kind: str
    group: int
    count: int
    shapes: tuple[Shape, ...]
    source: str

    @property
    def bytes(self) -> int:
        """Bytes of its results on one device, for one execution."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def wire_bytes(self) -> float:
        """Bytes that one device sends in a step, as in a ring: the least there is.

        Of n devices, a reduction of b bytes sends 2 b (n - 1) / n, a gather of b bytes in
        all b (n - 1) / n, a scatter to b bytes b (n - 1), an exchange b (n - 1) / n.
        """
        others = self.group - 1
        share = {
            "all-reduce": 2 * others / self.group,
            "all-gather": others / self.group,
            "reduce-scatter": others,
            "all-to-all": others / self.group,
            "collective-permute": 1.0,
        }[self.kind]
        return share * self.bytes * self.count


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # from the operands on


def read_collectives(hlo: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program that more than one device takes part in.

    A TPU's compiler can spread one collective over several fusions; it must have been told
    not to (see `plan.PLAIN`).

    Args:
      hlo: the text of its optimized HLO module (`compiled.as_text()`).
      devices: it runs on; the group of a collective that names none.

    Raises:
      ValueError: a loop around a collective whose trips the text does not tell, or groups
        of devices that it writes in an unknown way.
    """
    computations = _computations(hlo)
    times = _times(computations, _entry(hlo))
    found = []
    for name, instructions in computations.items():
        for instruction in instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS or not times.get(name):
                continue
            count = times[name]
            if count < 0:
                raise ValueError(f"{instruction.name} is in a loop of an unknown number of trips")
            group = _group_size(instruction.rest, devices)
            if group > 1:
                source = re.search(r'op_name="([^"]*)"', instruction.rest)
                found.append(
                    Collective(
                        kind, group, count, _results(instruction), source[1] if source else ""
                    )
                )
    return found


def _entry(hlo: str) -> str:
    match = re.search(r"^ENTRY %?([\w.\-]+)", hlo, re.MULTILINE)
    if match is None:
        raise ValueError("no ENTRY computation: this is no HLO module")
    return match[1]


def _computations(hlo: str) -> dict[str, list[_Instruction]]:
    computations: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] = []
    for line in hlo.splitlines():
        if line[:1] not in (" ", "}", ""):
            match = _COMPUTATION.match(line)
            if match:
                current = computations.setdefault(match[1], [])
            continue
        match = _INSTRUCTION.match(line)
        if match:
            current.append(_Instruction(*match.groups()))
    return computations


def _called(instruction: _Instruction) -> Iterator[tuple[str, str]]:
    """(attribute, computation) pairs."""
    for match in _CALLED.finditer(instruction.rest):
        for name in match[2].strip("{}").split(","):
            yield match[1], name.strip().removeprefix("%")


def _times(computations: dict[str, list[_Instruction]], entry: str) -> dict[str, int]:
    """The number of times that each computation runs; negative if unknown."""
    times = dict.fromkeys(computations, 0)

    def run(name: str, count: int) -> None:
        times[name] = -1 if count < 0 or times[name] < 0 else times[name] + count
        for instruction in computations[name]:
            trips = 1
            if instruction.opcode == "while":
                trips = _trips(instruction, computations)
            for attribute, called in _called(instruction):
                # What a reduction applies to two elements is arithmetic: nothing is sent there.
                if attribute != "to_apply" or instruction.opcode == "call":
                    run(called, -1 if count < 0 or trips < 0 else count * trips)

    run(entry, 1)
    return times


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int:
    """Trips of a loop: said by the compiler, or what a counter from 0 is compared with; else -1."""
    known = _TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = dict(_called(loop))["condition"]
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


def _group_size(rest: str, devices: int) -> int:
    """Devices of a group, in any of the ways that HLO writes them."""
    if "replica_groups=" not in rest or "replica_groups={}" in rest:
        return devices
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if axes:  # mesh['a'=4,'b'=8], device_ids=(…) {'a','b':(2)4}: all of a, and 4 of b's 8
        sizes = dict(re.findall(r"'([^']*)'=(\d+)", axes[1]))
        named = re.findall(r"'([^']*)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[name]) for name, part in named)
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", rest)
    if iota:  # [groups,size]<=[…]
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:  # {{0,1},{2,3}}
        return listed[1].count(",") + 1
    raise ValueError(f"replica groups that cannot be read: {rest[:200]}")


def _results(instruction: _Instruction) -> tuple[Shape, ...]:
    """The shapes that one device ends up with."""
    shapes = tuple(
        Shape(dtype, tuple(int(n) for n in dimensions.split(",") if n))
        for dtype, dimensions in _ARRAY.findall(re.sub(r"\{[^}]*\}", "", instruction.shape))
    )
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        # ((operands), (results), context): the operands are as many as the results.
        operands = len(re.findall(r"%[\w.\-]+", instruction.rest.partition(")")[0]))
        return shapes[operands : 2 * operands]
    return shapes
