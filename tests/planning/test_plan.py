"""Plans: what is counted, what is sent between chips, and whether it fits.

The compiled programs here are for this machine's eight host devices; the golden plans at
the end are for TPUs, and need libtpu.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest

from electra_jax import cli
from electra_jax.config import load_config, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.parallel.hardware import CHIPS, find_chip
from electra_jax.parallel.mesh import MeshConfig, make_mesh
from electra_jax.planning import search as plan_search
from electra_jax.planning.collectives import Collective, read_collectives
from electra_jax.planning.estimate import (
    ATTAINABLE,
    Estimate,
    activation_bytes_per_token,
    estimate_step,
    logits_per_token,
)
from electra_jax.planning.hlo import Shape
from electra_jax.planning.plan import (
    Memory,
    ModelCost,
    Placement,
    compile_step,
    exceeded,
    plan_model,
    plan_placement,
    resolve_for_accelerators,
)
from electra_jax.planning.render import plan_json, render_plan, render_search
from electra_jax.planning.search import candidates, wire_bytes
from electra_jax.pretraining.program import batch_shapes, flops_per_token, pretraining_program

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "plans.json"
ROWS, LENGTH, VOCABULARY = 16, 24, 256
# No parameter has a size of the batch: 2 rows on a device, 24 tokens, 3 masked positions.
TINY = [
    "model.layers=1", "model.hidden=32", "model.heads=4", "model.intermediate=64",
    "model.embedding=16", "model.max_positions=32", f"model.vocab_size={VOCABULARY}",
    f"data.length={LENGTH}", f"train.batch_size={ROWS}",
    "model.dropout=0.0", "model.attention_dropout=0.0",
]  # fmt: skip
FEW = 1024  # bytes: counts and norms, not arrays
MESHES = {
    "data": MeshConfig(),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "tensor": MeshConfig(data=2, tensor=4),
}


def planned(spec, *overrides):
    return resolve_for_accelerators(load_config(spec, list(overrides)))


@functools.cache
def model_of(spec):
    return plan_model(planned(spec))


@functools.cache
def compiled(mesh_name):
    """The parameters' shapes, and the collectives of a tiny step on a mesh."""
    mesh = make_mesh(MESHES[mesh_name], jax.devices())
    config = pretrain_config(load_config("pretrain/small", TINY))
    program = pretraining_program(config, mesh, None)
    hlo = compile_step(program, batch_shapes(config, mesh)).as_text()
    shapes = {leaf.shape for leaf in jax.tree.leaves(program.state.params)}
    return shapes, read_collectives(hlo, 8)


def gathered_besides_parameters(mesh_name):
    """Shapes that are gathered, permuted or exchanged, and are no parameter's."""
    parameters, collectives = compiled(mesh_name)
    moved = {
        shape.dimensions
        for collective in collectives
        if collective.kind != "all-reduce"
        for shape in collective.shapes
    }
    return moved - parameters


@pytest.mark.slow
def test_data_parallelism_reduces_the_gradients_once_and_moves_nothing_else():
    parameters, collectives = compiled("data")
    assert {collective.kind for collective in collectives} == {"all-reduce"}
    large = [c for c in collectives if c.bytes > FEW]
    assert len(large) == 1 and large[0].count == 1 and large[0].group == 8
    # The compiler may hold a gradient transposed.
    reduced = {tuple(sorted(shape.dimensions)) for shape in large[0].shapes}
    matrices = {tuple(sorted(shape)) for shape in parameters if len(shape) == 2}
    assert {shape for shape in matrices if min(shape) > 1} <= reduced


@pytest.mark.slow
def test_fsdp_gathers_parameters_and_nothing_of_the_batch():
    parameters, collectives = compiled("fsdp")
    assert gathered_besides_parameters("fsdp") == set()
    gathered = {s.dimensions for c in collectives if c.kind == "all-gather" for s in c.shapes}
    assert {(VOCABULARY, 16), (32, 64), (64, 32), (32, 32)} <= gathered


@pytest.mark.slow
def test_a_mesh_made_tensor_parallel_by_mistake_is_caught():
    """The assertion above on another mesh: it must be able to fail."""
    assert gathered_besides_parameters("tensor") != set()


@pytest.mark.slow
def test_tensor_parallelism_sends_no_logits():
    """Nor anything else of the vocabulary's size but vectors, which the optimizer gathers."""
    _, collectives = compiled("tensor")
    sent = [shape for collective in collectives for shape in collective.shapes]
    assert not [s for s in sent if VOCABULARY in s.dimensions and len(s.dimensions) > 1]


@pytest.mark.parametrize(
    ("spec", "parameters", "megaflops"),
    [
        ("pretrain/small", 14.2, 70.2),
        pytest.param("pretrain/large", 354.7, 2169, marks=pytest.mark.slow),
    ],
)
def test_models_cost_what_their_configs_say(spec, parameters, megaflops):
    model = model_of(spec)
    assert model.total_parameters / 1e6 == pytest.approx(parameters, abs=0.06)
    assert model.total_flops_per_token / 1e6 == pytest.approx(megaflops, rel=2e-3)
    # Float32 parameters, and Adam's two moments of each.
    assert model.state_bytes["parameters"] == 4 * model.total_parameters
    assert model.state_bytes["optimizer"] == 2 * model.state_bytes["parameters"]


def test_a_plan_is_of_bfloat16_and_a_real_vocabulary():
    config = planned("pretrain/small")
    assert (config.model.dtype, config.model.vocab_size) == ("bfloat16", 30522)
    given = planned("pretrain/small", "model.dtype=float32", "model.vocab_size=8192")
    assert (given.model.dtype, given.model.vocab_size) == ("float32", 8192)


def test_activation_traffic_of_small_is_that_of_the_count_by_hand():
    """116 passes over 256 bfloat16 numbers in 12 layers, a generator of a quarter, logits."""
    discriminator = 116 * 256 * 12 * 2
    generator = (54 * 64 + 11 * 256 + 9 * 128) * 12 * 2
    logits = 8 * 4 * 19 / 128 * 30522
    expected = discriminator + generator + logits
    assert activation_bytes_per_token(planned("pretrain/small")) == pytest.approx(expected)
    more = activation_bytes_per_token(planned("pretrain/small", "model.remat=true"))
    assert more > 1.2 * expected


def test_a_step_is_arithmetic_or_memory_and_then_what_is_sent():
    chip = CHIPS["TPU v5e"]
    estimate = Estimate(chip.flops, 2 * chip.hbm_bandwidth, 3 * chip.link_bandwidth, chip)
    assert estimate.terms(attainable=False) == {"compute": 1, "memory": 2, "interconnect": 3}
    assert estimate.seconds(attainable=False) == 5
    shares = ATTAINABLE
    longest = max(1 / shares["compute"], 2 / shares["memory"])
    assert estimate.seconds() == pytest.approx(longest + 3 / shares["interconnect"])
    assert estimate.binds == "interconnect"


def test_work_is_shared_by_the_chips():
    config, chip = planned("pretrain/base"), CHIPS["TPU v5e"]
    one = estimate_step(config, chip, {"data": 1, "fsdp": 1, "tensor": 1}, 0, 0, 0)
    many = estimate_step(config, chip, {"data": 2, "fsdp": 2, "tensor": 2}, 0, 0, 0)
    assert many.flops == pytest.approx(one.flops / 8)
    assert many.hbm_bytes > one.hbm_bytes / 8  # the hidden vectors are on each of a tensor group
    assert one.flops == pytest.approx(668.3e6 * 256 * 512, rel=1e-3)


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite"])
def test_every_tpu_that_can_be_planned_for_is_known(kind):
    assert find_chip(kind) is not None


def test_the_compilers_complaint_becomes_two_numbers():
    """In both of the forms that it has."""
    message = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm"
    assert exceeded(message, 2**30) == (20.5 * 2**30, 15.75 * 2**30)
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (133.01G) exceeds available HBM (15.75G)."
    )
    needed, limit = exceeded(message, 2**30)
    assert (needed / 2**30, limit / 2**30) == pytest.approx((134.01, 15.75))
    with pytest.raises(RuntimeError, match="something else"):
        exceeded("something else", 0)


def test_candidates_fill_the_slice_and_keep_the_batch():
    config = planned("pretrain/small", "train.batch_size=1024")
    model = dataclasses.replace(model_of("pretrain/small"), tokens_per_step=1024 * 128)
    found = list(candidates(config, model, CHIPS["TPU v5e"], 16))
    assert found
    for candidate in found:
        mesh, train = candidate.config.mesh, candidate.config.train
        assert mesh.data * mesh.fsdp * mesh.tensor == 16
        assert config.model.heads % mesh.tensor == 0
        assert train.batch_size == config.train.batch_size
        assert train.batch_size % (mesh.data * mesh.fsdp * train.accumulate) == 0
        assert candidate.bytes <= CHIPS["TPU v5e"].hbm_bytes
    assert {c.config.model.remat for c in found} == {True, False}
    assert {c.config.mesh.tensor for c in found} >= {1, 2, 4}


def test_what_is_sent_grows_with_what_is_cut():
    config = planned("pretrain/large")

    def sent(data, fsdp, tensor, accumulate=1):
        train = dataclasses.replace(config.train, accumulate=accumulate)
        placed = dataclasses.replace(config, mesh=MeshConfig(data, fsdp, tensor), train=train)
        return wire_bytes(placed, 10**9, 10**6)

    assert sent(1, 1, 1) == 0
    assert sent(16, 1, 1) == pytest.approx(2 * 4e9 * 15 / 16)
    assert sent(1, 16, 1) == pytest.approx((2 * 2 + 4) * 1e9 * 15 / 16)
    assert sent(1, 1, 16) > 0
    # In each microbatch, as the golden plans have it.
    assert sent(16, 1, 1, accumulate=4) == 4 * sent(16, 1, 1)
    assert sent(1, 1, 16, accumulate=4) == sent(1, 1, 16)


def test_logits_at_every_position_cost_more():
    def logits(*overrides):
        return logits_per_token(planned("pretrain/small", *overrides)) / 30522

    towers = ("generator.kind=two_tower", "generator.width=1.0")
    assert logits() == logits(*towers) == 19 / 128
    assert logits("objective.name=electric", *towers) == 1
    assert logits("objective.name=replace_mlm", "generator.width=1.0") == 2 * 19 / 128
    assert logits("objective.name=all_tokens_mlm", "generator.width=1.0") == 1 + 19 / 128


def test_a_frozen_generator_costs_its_forward_pass():
    plain, frozen = (
        flops_per_token(planned("pretrain/small", *fields))
        for fields in ((), ("optimizer.frozen=^generator/",))
    )
    assert frozen["generator"] == plain["generator"] / 3
    assert frozen["discriminator"] == plain["discriminator"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mesh.fsdp=3", "does not fit 8 devices"),
        ("train.batch_size=100", "the nearest that works: 96 or 104"),
        ("mesh.tensor=8", "does not divide the 4 attention heads"),
    ],
)
def test_what_does_not_go_with_the_slice_is_said_before_compiling(override, message):
    with pytest.raises(UsageError, match=message):
        plan_placement(planned("pretrain/small", override), "v5e:2x4", jax.devices())


def made_up(fits):
    """A model of a million tokens a step on four chips, bound by what it sends."""
    model = ModelCost({"all": 10**6}, {"all": 197e6}, {"parameters": 4 * 10**6}, 10**6, 3600, None)
    memory = Memory(model.state_bytes, 0, 2**30, 0, 0, 20.5 * 2**30, 15.75 * 2**30)
    collective = Collective("all-reduce", 4, 2, (Shape("f32", (1000,)),), "")
    chip = CHIPS["TPU v5e"]
    flops, sent = 197e12 / 4, 0.7 * chip.link_bandwidth
    estimate = Estimate(flops, 0, sent, chip) if fits else None
    mesh = {"data": 4, "fsdp": 1, "tensor": 1}
    return model, Placement(
        "v5e:2x2", 4, "TPU v5 lite", mesh, memory, [collective] * 3, {"bf16": 10}, estimate
    )


def test_what_does_not_fit_says_how_much_it_needs():
    text = render_plan("it", *made_up(fits=False))
    assert "does not fit: needs 20.50 GiB of 15.75 GiB" in text
    assert "days" not in text and "run" not in plan_json(*made_up(fits=False))["placement"]


def test_the_arithmetic_of_a_step_and_of_a_run():
    model, placement = made_up(fits=True)
    assert "matrix products a step: 10 in bf16" in render_plan("it", model, placement)
    found = plan_json(model, placement)["placement"]
    assert found["collectives"] == [
        {"kind": "all-reduce", "group": 4, "count": 6, "bytes": 24000, "wire_bytes": 36000.0}
    ]
    estimate = found["estimate"]
    assert estimate["binds"] == "interconnect"
    assert estimate["step_seconds"] == pytest.approx(0.25 / ATTAINABLE["compute"] + 1)
    assert estimate["mfu"] == pytest.approx(0.25 / estimate["step_seconds"])
    assert found["run"]["seconds"] == pytest.approx(3600 * estimate["step_seconds"])
    assert found["run"]["chip_hours"] == pytest.approx(4 * estimate["step_seconds"])
    text = render_plan("it", model, placement)
    assert "4.92e+13 FLOPs / 197 TFLOP/s" in text and "<- binds" in text


def test_the_search_tries_half_as_many_rows_where_it_does_not_fit(monkeypatch):
    config, (model, good) = planned("pretrain/small"), made_up(fits=True)
    tried = []

    def plan(config, topology, devices):
        tried.append(config)
        return good if len(tried) > 1 else made_up(fits=False)[1]

    monkeypatch.setattr(plan_search, "plan_placement", plan)
    chips = [types.SimpleNamespace(device_kind="TPU v5 lite")] * 4
    told = []
    found = plan_search.search(config, model, "v5e:2x2", chips, told.append, compiled=4)
    assert len(found) == len(tried) == len(told) == 4
    assert [placement.fits for placement, _ in found] == [True, True, True, False]
    assert all(config.model.scan for config in tried)
    first = tried[0]
    halved = [c for c in tried[1:] if (c.mesh, c.model.remat) == (first.mesh, first.model.remat)]
    assert [c.train.accumulate for c in halved] == [2 * first.train.accumulate]
    table = render_search(model, found)
    assert "--config.mesh.data=" in table and "does not fit" in table


def test_the_command_prints_a_table_and_json(capsys):
    assert cli.main(["plan", "--config", "pretrain/tiny", "--config.train.time_budget="]) == 0
    table = capsys.readouterr().out
    assert "4,955,195" in table and "1,000,000 steps" in table
    assert cli.main(["plan", "--config", "pretrain/tiny", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["steps"] is None and model["budget_seconds"] == 1200


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology", "v9"], "unknown; write v4, v5e, v5p, v6e"),
        (["--search"], "--search needs a --topology"),
        (["--config.model.layerz=1"], "did you mean --config.model.layers"),
    ],
)
def test_errors_are_one_line(flags, message, capsys):
    assert cli.main(["plan", "--config", "pretrain/small", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@functools.cache
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.mark.full
@pytest.mark.parametrize("case", golden(), ids=lambda c: f"{c['config']}@{c['topology']}")
def test_shipped_configs_fit_and_send_what_they_did(case):
    """Compiled for TPUs, in a process of its own (see tests/golden/record_plans.py)."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install '.[plan]'")
    flags = [f"--config.{override}" for override in case["overrides"]]
    done = subprocess.run(
        [sys.executable, "-m", "electra_jax", "plan", "--config", case["config"],
         "--topology", case["topology"], "--json", *flags],
        capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""},
    )  # fmt: skip
    placement = json.loads(done.stdout)["placement"]
    assert placement["fits"] and case["fits"]
    found = [[r["kind"], r["group"], r["count"], r["bytes"]] for r in placement["collectives"]]
    assert found == case["collectives"]
    assert placement["memory"]["needed"] / 2**30 == pytest.approx(case["gib"], rel=0.05)
    if "products" not in case:
        pytest.skip("memory traffic and products are not recorded: run record_plans.py")
    tokens = json.loads(done.stdout)["model"]["tokens_per_step"] / placement["chips"]
    traffic = placement["estimate"]["hbm_bytes"] / tokens / 1e6
    assert traffic == pytest.approx(case["mb_per_token"], rel=0.05)
    assert placement["products"] == case["products"]


def test_golden_plans_multiply_in_bfloat16_alone():
    assert {dtype for case in golden() for dtype in case.get("products", ())} == {"bf16"}
