"""Memory traffic and matrix products, counted from HLO."""

import jax
import jax.numpy as jnp
import pytest

from electra_jax.planning.hlo import Shape
from electra_jax.planning.traffic import count_products, memory_traffic, read_products

# A loop of three trips, whose fusion reads one row of %table and multiplies by it.
PROGRAM = """HloModule m

%fused (t: f32[3,16], x: bf16[4,4]) -> bf16[4,4] {
  %table.1 = f32[3,16]{1,0} parameter(0)
  %x.1 = bf16[4,4]{1,0} parameter(1)
  %same = f32[3,16]{1,0} bitcast(%table.1)
  %row = f32[1,16]{1,0} dynamic-slice(%same, %x.1), dynamic_slice_sizes={1,16}
  %square = f32[4,4]{1,0} bitcast(%row)
  ROOT %y.1 = bf16[4,4]{1,0} dot(%x.1, %square), metadata={op_name="layer/dot"}
}

%update (s: f32[3,16], u: f32[1,16]) -> (f32[3,16], f32[1,16]) {
  %stack.1 = f32[3,16]{1,0} parameter(0)
  %u.1 = f32[1,16]{1,0} parameter(1)
  %written = f32[3,16]{1,0} dynamic-update-slice(%stack.1, %u.1)
  ROOT %both = (f32[3,16]{1,0}, f32[1,16]{1,0}) tuple(%written, %u.1)
}

%body (p: (s32[], f32[3,16], bf16[4,4])) -> (s32[], f32[3,16], bf16[4,4]) {
  %p = (s32[], f32[3,16], bf16[4,4]) parameter(0)
  %table = f32[3,16]{1,0} get-tuple-element(%p), index=1
  %x = bf16[4,4]{1,0} get-tuple-element(%p), index=2
  %y = bf16[4,4]{1,0} fusion(%table, %x), kind=kOutput, calls=%fused
  ROOT %next = (s32[], f32[3,16], bf16[4,4]) tuple(%p, %table, %y)
}

%condition (p: (s32[])) -> pred[] {
  ROOT %q = pred[] parameter(0)
}

ENTRY %main (a: f32[8], s: f32[3,16], u: f32[1,16]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %s = f32[3,16]{1,0} parameter(1)
  %u = f32[1,16]{1,0} parameter(2)
  %loop = (s32[], f32[3,16], bf16[4,4]) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %kept = (f32[3,16]{1,0}, f32[1,16]{1,0}) fusion(%s, %u), kind=kLoop, calls=%update
  %near = f32[8]{0:T(128)S(1)} negate(%a)
  ROOT %b = f32[8]{0} add(%a, %near)
}
"""  # noqa: E501


def test_traffic_is_counted_by_trips_slices_and_places():
    """A loop counted once, a whole table for one row of it, or what never left the chip."""
    loop = 3 * (64 + 32 + 32)  # the row, x and y
    update = 64 + 64 + 64  # reads one row, and writes it in two places
    negate_and_add = 32 + (32 + 32)
    assert memory_traffic(PROGRAM) == loop + update + negate_and_add


def test_products_within_fusions_are_found():
    (product,) = read_products(PROGRAM)
    assert product.operands == (Shape("bf16", (4, 4)), Shape("f32", (4, 4)))
    assert (product.times, product.source) == (3, "layer/dot")
    assert count_products(PROGRAM) == {"f32": 3}


@pytest.mark.parametrize("rows", [64, 128])
def test_traffic_of_a_compiled_sum_is_its_arrays(rows):
    x = jax.ShapeDtypeStruct((rows, 1024), jnp.float32)
    hlo = jax.jit(lambda x, y: x + y).lower(x, x).compile().as_text()
    assert memory_traffic(hlo) == 3 * rows * 1024 * 4
