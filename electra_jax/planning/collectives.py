"""The collectives of a compiled program, read from its HLO text."""

import dataclasses
import math
import re

from electra_jax.planning.hlo import Instruction, Shape, parse_program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


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
    computations, times = parse_program(hlo)
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
                found.append(
                    Collective(kind, group, count, _results(instruction), instruction.source)
                )
    return found


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


def _results(instruction: Instruction) -> tuple[Shape, ...]:
    """The shapes that one device ends up with."""
    shapes = instruction.arrays()
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        # ((operands), (results), context): the operands are as many as the results.
        operands = len(instruction.operands)
        return shapes[operands : 2 * operands]
    return shapes
