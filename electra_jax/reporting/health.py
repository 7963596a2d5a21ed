"""Whether a run is sound, by the bounds and in the words of its own warnings.

What is wrong with metrics is said by the run's objective (`objectives.diagnosis`) and, once it has
lasted, by a warning in the log (`training.health`). Here both are sorted by what they are about.
"""

import contextlib
import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from electra_jax.finetuning.linear import LINEAR
from electra_jax.pretraining.health import STEEP
from electra_jax.reporting.numbers import count, number, percent, short
from electra_jax.reporting.run import Run
from electra_jax.reporting.run_warnings import Warned, warnings
from electra_jax.run_directory import BASELINE
from electra_jax.system.json_files import DAMAGE
from electra_jax.training.health import RATES, RISE, RISEN

GOOD, WATCH, BAD = "good", "watch", "bad"
NOT_A_NUMBER = "not_a_number"
CAUTIONS = {STEEP}  # warnings of what may happen, not of what has happened


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
      name: what it is.
      state: GOOD, WATCH (it may pass) or BAD.
      text: what was found, and what to try.
    """

    name: str
    state: str
    text: str


def health(run: Run) -> list[Check]:
    """What was looked at in a run; of what it has not logged nothing is said."""
    values = last_line(run)
    told = {one.name: one for one in warnings(run.lines) if one.last_step is None}
    findings = diagnose(run, values)
    checks = [
        _network("Generator", "generator", values, told, findings),
        _network("Discriminator", "discriminator", values, told, findings),
        _simpler_ways(run),
        _loss(run, told),
        _learning_rate(run, told),
        _gradients(run, values, told, findings),
    ]
    known = {name for name in told if _topic(name)}
    checks += [_warned("Warning", one) for name, one in told.items() if name not in known]
    over = sum(one.last_step is not None for one in warnings(run.lines))
    if over:
        checks.append(Check("Earlier", GOOD, f"{count(over, 'warning')} came and went (below)."))
    return [check for check in checks if check]


def overall(checks: list[Check]) -> str:
    """The worst state of all checks."""
    states = {check.state for check in checks}
    return BAD if BAD in states else WATCH if WATCH in states else GOOD


def last_line(run: Run) -> dict[str, float]:
    """The training metrics of the last line that has any, with NaN for what was not finite."""
    for line in reversed(run.lines):
        if "train/loss" in line:
            return {
                name.removeprefix("train/"): math.nan if value is None else value
                for name, value in line.items()
                if name.startswith("train/")
            }
    return {}


def diagnose(run: Run, values: Mapping[str, float]) -> dict[str, str]:
    """What the objective finds in the metrics of one line, by name."""
    if run.objective is None or not values:
        return {}
    with contextlib.suppress(*DAMAGE):  # a line of another version lacks what is looked at
        return {name: text for name, (text, _) in run.objective.diagnose(values).items()}
    return {}


def _topic(warning: str) -> str:
    """The check that a warning belongs to; "" if there is none."""
    if warning.endswith("_attention_dead"):
        return "gradients"
    if warning in (RISEN, NOT_A_NUMBER):
        return "loss"
    if warning == STEEP:
        return "learning rate"
    return next((n for n in ("generator", "discriminator") if warning.startswith(f"{n}_")), "")


def _warned(name: str, one: Warned) -> Check:
    state = WATCH if one.name in CAUTIONS else BAD
    return Check(name, state, f"Since step {one.first_step:,}: {one.text}.")


def _judged(
    name: str,
    topic: str,
    sound: str,
    told: Mapping[str, Warned],
    findings: Mapping[str, str] | None = None,
) -> Check | None:
    """A check that is bad by a warning, to be watched by a finding, else sound."""
    for warning, one in told.items():
        if _topic(warning) == topic:
            return _warned(name, one)
    for finding, text in (findings or {}).items():
        if _topic(finding) == topic:
            return Check(name, WATCH, f"At the last logged step: {text}.")
    return Check(name, GOOD, sound) if sound else None


def _network(
    name: str,
    network: str,
    values: Mapping[str, float],
    told: Mapping[str, Warned],
    findings: Mapping[str, str],
) -> Check | None:
    """Whether a network learns more than what needs no context."""
    loss, entropy = (values.get(f"{network}_masked_loss{end}") for end in ("", "_baseline"))
    auc, recall = (values.get(f"{network}_{part}") for part in ("auc", "recall"))
    sound = ""
    if loss is not None and entropy is not None:
        sound = (
            f"Its loss at masked tokens is {short(loss)}, below the {short(entropy)} of "
            "single-word frequencies: it uses context."
        )
    elif auc is not None and recall is not None:
        sound = (
            f"It tells replaced tokens from originals (AUC {short(auc)}, a guess has 0.5) and "
            f"finds {percent(recall)} of them."
        )
    return _judged(name, network, sound, told, findings)


def _simpler_ways(run: Run) -> Check | None:
    """Whether fine-tuning beats what needs none."""
    results = run.results
    if not results:
        return None
    metric = results["metric"]
    found = results["metrics"][metric]
    for kind, text in {BASELINE: "the baseline", **LINEAR}.items():
        simpler = results.get(kind, {}).get(metric, -math.inf)
        if simpler >= found:
            state = BAD if kind == BASELINE else WATCH
            return Check("Beside simpler ways", state,
                         f"{metric} {number(found)}, {text} alone {number(simpler)}: more "
                         "train.epochs or another optimizer.learning_rate may help.")  # fmt: skip
    return Check("Beside simpler ways", GOOD, "Fine-tuning beats every simpler way below.")


def _loss(run: Run, told: Mapping[str, Warned]) -> Check | None:
    losses = [line["train/loss"] for line in run.lines if line.get("train/loss") is not None]
    if not losses:
        return _judged("Loss", "loss", "", told)
    last, lowest = losses[-1], min(losses)
    text = f"{short(last)} at the end, {short(lowest)} at its lowest, {short(losses[0])} at first."
    risen = {RISEN: f"the loss is {number(last)}, and was {number(lowest)} before"}
    return _judged("Loss", "loss", text, told, risen if last > RISE * lowest > 0 else {})


def _learning_rate(run: Run, told: Mapping[str, Warned]) -> Check | None:
    name = f"train/{RATES[0]}"
    rates = [line[name] for line in run.lines if line.get(name) is not None]
    text = f"{short(rates[-1])} at the end, {short(max(rates))} at its peak." if rates else ""
    return _judged("Learning rate", "learning rate", text, told)


def _gradients(
    run: Run, values: Mapping[str, float], told: Mapping[str, Warned], findings: Mapping[str, str]
) -> Check | None:
    parts = []
    for name in values:
        kind, _, network = name.partition("/")
        if kind != "gradient_norm":
            continue
        logged = [line.get(f"train/{name}") for line in run.lines]
        norms = [value for value in logged if value is not None]
        if norms:
            parts.append(f"{network} {short(norms[-1])} (median {short(statistics.median(norms))})")
    text = f"Norms before clipping: {', '.join(parts)}." if parts else ""
    return _judged("Gradients", "gradients", text, told, findings)
