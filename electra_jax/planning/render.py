"""The command `plan`: its answer as a table for people, or as JSON for programs."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from electra_jax.errors import UsageError
from electra_jax.parallel.hardware import GIB
from electra_jax.planning.estimate import ATTAINABLE, Estimate
from electra_jax.planning.plan import (
    ModelCost,
    Placement,
    plan_model,
    plan_placement,
    resolve_for_accelerators,
    run_seconds,
    tally,
)
from electra_jax.planning.search import search
from electra_jax.planning.topology import stay_on_cpu, tpu_topology

DAY = 86400


def write_plan(
    title: str, fields: ml_collections.ConfigDict, topology: str, searching: bool, as_json: bool
) -> str:
    """The plan of a config, on a slice where one is named.

    Args:
      title: what the config is called.
      fields: of the config.
      topology: such as "v5e:4x4"; empty: of the model alone.
      searching: try meshes, microbatches and rematerialisation on it.
      as_json: JSON instead of a table.

    Raises:
      UsageError: no such slice, no libtpu, or a mesh or batch that does not go with it.
    """
    if searching and not topology:
        raise UsageError("--search needs a --topology, such as v5e:4x4")
    stay_on_cpu()
    config = resolve_for_accelerators(fields)
    devices = tpu_topology(topology) if topology else []
    model = plan_model(config)
    if not topology:
        return json.dumps(plan_json(model)) if as_json else render_plan(title, model)
    if searching:
        found = search(config, model, topology, devices, lambda text: print(text, file=sys.stderr))
        if as_json:
            rows = [placement_json(model, p) | {"fields": flags} for p, flags in found]
            return json.dumps(plan_json(model) | {"search": rows})
        return render_plan(title, model) + "\n\n" + render_search(model, found)
    placement = plan_placement(config, topology, devices)
    if as_json:
        return json.dumps(plan_json(model, placement))
    return render_plan(title, model, placement)


def plan_json(model: ModelCost, placement: Placement | None = None) -> dict[str, Any]:
    """A plan as plain values; bytes and operations are whole numbers, times are in seconds."""
    plan = {"model": dataclasses.asdict(model)}
    if placement is not None:
        plan["placement"] = placement_json(model, placement)
    return plan


def placement_json(model: ModelCost, placement: Placement) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "topology": placement.topology,
        "chips": placement.chips,
        "device_kind": placement.device_kind,
        "mesh": placement.mesh,
        "fits": placement.fits,
        "memory": dataclasses.asdict(placement.memory),
        "collectives": tally(placement.collectives),
        "products": placement.products,
    }
    if placement.estimate is not None:
        seconds = placement.estimate.seconds()
        run = run_seconds(model, seconds)
        fields["estimate"] = {
            "flops": placement.estimate.flops,
            "hbm_bytes": placement.estimate.hbm_bytes,
            "wire_bytes": placement.estimate.wire_bytes,
            "attainable": ATTAINABLE,
            "terms": placement.estimate.terms(),
            "terms_at_data_sheet_speed": placement.estimate.terms(attainable=False),
            "binds": placement.estimate.binds,
            "step_seconds": seconds,
            "tokens_per_second": model.tokens_per_step / seconds,
            "mfu": mfu(model, placement.estimate, placement.chips),
        }
        fields["run"] = {
            "seconds": run,
            "days": run / DAY,
            "chip_hours": run / 3600 * placement.chips,
        }
    return fields


def mfu(model: ModelCost, estimate: Estimate, chips: int) -> float:
    """Share of the peak that the model's own operations make of the estimated step."""
    flops = model.total_flops_per_token * model.tokens_per_step
    return flops / (chips * estimate.chip.flops * estimate.seconds())


def render_plan(title: str, model: ModelCost, placement: Placement | None = None) -> str:
    """A plan in lines."""
    lines = [title, "", *render_model(model)]
    if placement is not None:
        lines += ["", *render_placement(model, placement)]
    return "\n".join(lines)


def render_model(model: ModelCost) -> list[str]:
    parts = {name: f"{count:,}" for name, count in model.parameters.items()}
    flops = {name: f"{count / 1e6:.1f}M" for name, count in model.flops_per_token.items()}
    state = {name: size(count) for name, count in model.state_bytes.items()}
    length = (
        f"{model.steps:,} steps, {model.steps * model.tokens_per_step / 1e9:.1f}G tokens"
        if model.steps is not None
        else f"{model.budget_seconds:,.0f} s by the clock"
    )
    return [
        row("parameters", f"{model.total_parameters:,}", parts),
        row("training FLOPs a token", f"{model.total_flops_per_token / 1e6:.1f}M", flops),
        row("state, once", size(sum(model.state_bytes.values())), state),
        row("tokens a step", f"{model.tokens_per_step:,}", {}),
        row("run", length, {}),
    ]


def render_placement(model: ModelCost, placement: Placement) -> list[str]:
    memory = placement.memory
    mesh = " ".join(f"{axis}={count}" for axis, count in placement.mesh.items())
    lines = [
        f"planned, not measured: {placement.chips} x {placement.device_kind} "
        f"({placement.topology}), mesh {mesh}"
    ]
    if placement.estimate is None:
        verdict = f"does not fit: needs {size(memory.needed)} of {size(memory.limit)} a chip"
        return [*lines, verdict, *render_memory(placement, known=False)]
    lines += [
        f"fits: {size(memory.needed)} of {size(memory.limit)} a chip",
        *render_memory(placement, known=True),
        "collectives a step (as one chip sees them)",
        f"  {'kind':<20}{'chips':>6}{'count':>7}{'bytes':>12}{'sent':>12}",
    ]
    for r in tally(placement.collectives):
        lines.append(
            f"  {r['kind']:<20}{r['group']:>6}{r['count']:>7}"
            f"{size(r['bytes']):>12}{size(r['wire_bytes']):>12}"
        )
    products = ", ".join(f"{n:,} in {dtype}" for dtype, n in sorted(placement.products.items()))
    lines.append(f"matrix products a step: {products}")
    return [*lines, *render_estimate(model, placement.estimate, placement.chips)]


def render_memory(placement: Placement, known: bool) -> list[str]:
    memory = placement.memory
    kinds = {**memory.state, "batch": memory.batch}
    if known:
        kinds |= {
            "temporaries": memory.temporaries,
            "outputs": memory.outputs,
            "program": memory.code,
        }
    return [f"  {name:<20}{size(count):>12}" for name, count in kinds.items()]


def render_estimate(model: ModelCost, estimate: Estimate, chips: int) -> list[str]:
    """The arithmetic of a step's time, and what it makes of the whole run."""
    peak, chip = estimate.terms(attainable=False), estimate.chip
    assumed = estimate.terms()
    work = {
        "compute": f"{estimate.flops:.3g} FLOPs / {chip.flops / 1e12:.0f} TFLOP/s",
        "memory": f"{estimate.hbm_bytes / 1e9:.3g} GB / {chip.hbm_bandwidth / 1e9:.0f} GB/s",
        "interconnect": f"{estimate.wire_bytes / 1e9:.3g} GB / "
        f"{chip.link_bandwidth / 1e9:.0f} GB/s",
    }
    lines = ["a step's time"]
    for name, text in work.items():
        mark = "  <- binds" if name == estimate.binds else ""
        lines.append(
            f"  {name:<13}{text:<34}= {milliseconds(peak[name]):>9}, at {ATTAINABLE[name]:.0%} "
            f"{milliseconds(assumed[name]):>9}{mark}"
        )
    seconds = estimate.seconds()
    run = run_seconds(model, seconds)
    return [
        *lines,
        f"  max(compute, memory) + interconnect = {milliseconds(seconds)} "
        f"({milliseconds(estimate.seconds(attainable=False))} at data-sheet speed)",
        f"  {model.tokens_per_step / seconds:,.0f} tokens a second, "
        f"{mfu(model, estimate, chips):.0%} of peak FLOPs",
        f"whole run: {run / DAY:.2f} days, {run / 3600 * chips:,.0f} chip-hours",
    ]


def render_search(model: ModelCost, found: Sequence[tuple[Placement, Mapping[str, Any]]]) -> str:
    """Placements beside the flags that ask for them, in the order given."""
    lines = [
        f"{'step':>10}{'tokens/s':>13}{'days':>8}{'memory':>12}  {'binds':<13} flags",
    ]
    for placement, fields in found:
        flags = " ".join(f"--config.{name}={value}" for name, value in fields.items())
        if placement.estimate is None:
            need = size(placement.memory.needed)
            lines.append(f"{'does not fit':>31}{need:>12}  {'':<13} {flags}")
            continue
        seconds = placement.estimate.seconds()
        lines.append(
            f"{milliseconds(seconds):>10}{model.tokens_per_step / seconds:>13,.0f}"
            f"{run_seconds(model, seconds) / DAY:>8.2f}{size(placement.memory.needed):>12}"
            f"  {placement.estimate.binds:<13} {flags}"
        )
    return "\n".join(lines)


def row(name: str, total: str, parts: Mapping[str, str]) -> str:
    detail = ", ".join(f"{part} {value}" for part, value in parts.items())
    return f"{name:<24}{total:>14}" + (f"  ({detail})" if detail else "")


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit, scale in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:.0f} B"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
