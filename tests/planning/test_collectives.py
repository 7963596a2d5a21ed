"""Collectives read from HLO: in each way of writing groups, in tuples, loops and started forms."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.planning.collectives import read_collectives
from electra_jax.planning.hlo import Shape

PROGRAM = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_condition (i: (s32[])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %p = (s32[]) parameter(0)
  %n = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%n, %limit), direction=LT
}

%inner_body (i: (s32[])) -> (s32[]) {
  %p.1 = (s32[]) parameter(0)
  %gather = bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[]) tuple(%n.1)
}

%outer_body (i: (s32[])) -> (s32[]) {
  %p.2 = (s32[]) parameter(0)
  ROOT %loop = (s32[]) while(%p.2), condition=%inner_condition, body=%inner_body
}

%outer_condition (i: (s32[])) -> pred[] {
  ROOT %p.3 = pred[] parameter(0)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %w = (s32[]) while(%t.1), condition=%outer_condition, body=%outer_body, backend_config={"known_trip_count":{"n":"5"}}
  %r = (f32[4]{0:T(256)S(1)}, bf16[2,3]{1,0}) all-reduce(%x, %y), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add, metadata={op_name="step/sum"}
  %start = (f32[4]{0}, f32[32]{0}) all-gather-start(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %done = f32[32]{0} all-gather-done(%start)
  %s = f32[4]{0} reduce-scatter(%done), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %alone = f32[4]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%add
  ROOT %moved = f32[4]{0} collective-permute(%s), source_target_pairs={{0,1},{1,0}}
}
"""  # noqa: E501


def test_every_form_is_read():
    found = {(c.kind, c.group, c.count): c for c in read_collectives(PROGRAM, 8)}
    assert set(found) == {
        ("all-gather", 4, 15),
        ("all-reduce", 4, 1),
        ("all-gather", 8, 1),
        ("reduce-scatter", 2, 1),
        ("collective-permute", 8, 1),
    }
    reduced = found["all-reduce", 4, 1]
    assert reduced.shapes == (Shape("f32", (4,)), Shape("bf16", (2, 3)))
    assert (reduced.bytes, reduced.source) == (28, "step/sum")
    assert found["all-gather", 8, 1].shapes == (Shape("f32", (32,)),)


def test_bytes_on_the_wire_are_those_of_a_ring():
    found = {(c.kind, c.group): c.wire_bytes for c in read_collectives(PROGRAM, 8)}
    assert found["all-gather", 4] == 15 * 64 * 3 / 4
    assert found["all-reduce", 4] == 28 * 2 * 3 / 4
    assert found["all-gather", 8] == 128 * 7 / 8
    assert found["reduce-scatter", 2] == 16
    assert found["collective-permute", 8] == 16


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("mesh['a'=4,'b'=1,'c'=4], device_ids=([4,4]T(1,0)) {'a'}", 4),
        ("mesh['a'=2,'b'=8] {'a','b':(2)4}", 8),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("{}", 8),
    ],
)
def test_groups_are_read_in_every_notation(groups, size):
    line = f"  ROOT %r = f32[4]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%add"
    found = read_collectives(f"ENTRY %main (x: f32[4]) -> f32[4] {{\n{line}\n}}\n", 8)
    assert [collective.group for collective in found] == [size]


def test_groups_in_another_notation_are_no_guess():
    with pytest.raises(ValueError, match="cannot be read"):
        read_collectives(PROGRAM.replace("[2,4]<=[8]", "new!"), 8)


def test_a_loop_of_unknown_length_is_no_guess():
    with pytest.raises(ValueError, match="unknown number of trips"):
        read_collectives(PROGRAM.replace('"known_trip_count"', '"other"'), 8)


def test_a_compiled_scan_is_counted_by_its_trips():
    """What the compiler of this machine writes, and not only the text above."""
    mesh = make_mesh(MeshConfig(), jax.devices())
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    whole = NamedSharding(mesh, PartitionSpec())

    def step(carry_16, weight_16):
        gathered_16 = jax.lax.with_sharding_constraint(weight_16, whole)
        return jnp.sin(carry_16[::-1] * gathered_16), None

    def run(weights_7_16):
        return jax.lax.scan(step, jnp.ones(16), weights_7_16)[0]

    weights = jax.ShapeDtypeStruct((7, 16), jnp.float32, sharding=split)
    hlo = jax.jit(run, out_shardings=whole).lower(weights).compile().as_text()
    assert sum(c.bytes * c.count for c in read_collectives(hlo, 8)) == 7 * 16 * 4
