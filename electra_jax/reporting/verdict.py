"""The top of the page: what was trained on what, for how long, and how good it is."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from electra_jax.config import FinetuneConfig, PretrainConfig
from electra_jax.finetuning.linear import LINEAR
from electra_jax.objectives import objectives
from electra_jax.reporting.curves import title
from electra_jax.reporting.health import BAD, GOOD, WATCH, Check, health, overall
from electra_jax.reporting.numbers import compact, count, duration, percent, short
from electra_jax.reporting.run import Run
from electra_jax.run_directory import BASELINE

HEADLINES = {
    GOOD: "The run is healthy",
    WATCH: "The run is worth a look",
    BAD: "The run needs attention",
}
UNKNOWN = "Nothing was logged to judge the run by"
# Shares of all, which are written in percent.
SHARES = ("accuracy", "minimal_pairs", "recall", "precision")


class Figure(NamedTuple):
    """A number at the top of the page."""

    name: str
    value: str
    beside: str  # what to compare it with


class Contender(NamedTuple):
    """A way to answer a task, and how good it is; `share` is the length of its bar, in percent."""

    name: str
    value: str
    share: float
    own: bool  # whether it is the run itself


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the page says first.

    Attributes:
      kind: of run.
      state: see `reporting.health`; "unknown" if there is nothing to judge by.
      headline: the state in words.
      story: sentences about what was trained, on what and for how long.
      quality: sentences about how good it is.
      figures: the most important numbers.
      contenders: of a fine-tuning run, itself and simpler ways.
      metric: that of the contenders.
      checks: what the state comes from.
    """

    kind: str
    state: str
    headline: str
    story: list[str]
    quality: list[str]
    figures: list[Figure]
    contenders: list[Contender]
    metric: str
    checks: list[Check]


def verdict(run: Run, others: list[Run]) -> Verdict:
    """The verdict on a run.

    Args:
      run: that the page is about.
      others: that it is compared with; a fresh encoder on the same task is a contender.
    """
    checks = health(run)
    state = overall(checks) if checks else "unknown"
    story = _finetuning_story(run) if run.is_finetuning else _pretraining_story(run)
    return Verdict(
        kind="Fine-tuning" if run.is_finetuning else "Pretraining",
        state=state,
        headline=HEADLINES.get(state, UNKNOWN),
        story=story,
        quality=_finetuning_quality(run) if run.is_finetuning else _pretraining_quality(run),
        figures=_figures(run),
        contenders=_contenders(run, others),
        metric=run.results.get("metric", ""),
        checks=checks,
    )


def _pretraining_story(run: Run) -> list[str]:
    config = run.config
    length = f"It ran for {count(run.steps, 'step')} in {duration(run.seconds)}"
    if not isinstance(config, PretrainConfig):
        return [f"{length}."]
    model = config.model
    parts = dict(run.parameters)
    size = f", {compact(sum(parts.values()))} parameters" if parts else ""
    if generator := parts.get("generator"):
        size += f" ({compact(generator)} of them the generator’s own)"
    what = (
        f"An encoder of {count(model.layers, 'layer')} of width {model.hidden:,}, "
        f"{model.architecture} architecture{size}."
    )
    text = (objectives()[config.objective.name].__doc__ or "").strip().splitlines()
    story = [what, f"Objective {config.objective.name}" + (f" – {text[0]}" if text else ".")]
    seen = run.steps * (run.tokens_per_step or 0)
    length += f" and read {compact(seen)} tokens"
    if run.store_tokens:
        passes = seen / run.store_tokens
        share = percent(passes) if passes < 1 else f"{short(passes)} times"
        length += f", {share} {'of ' * (passes < 1)}its text of {compact(run.store_tokens)}"
    return [*story, f"{length}.", f"Token store: {_base_names(config.data.store)}."]


def _base_names(stores: str) -> str:
    """Stores without the folders that they lie in."""
    return ", ".join(Path(part).name or part for part in stores.split(",")) or "not named"


def _finetuning_story(run: Run) -> list[str]:
    config, rows = run.config, run.results.get("rows", {})
    length = f"It ran for {count(run.steps, 'step')} in {duration(run.seconds)}"
    if not isinstance(config, FinetuneConfig):
        return [f"{length}."]
    fresh = "the shape alone of " if config.init.fresh else ""
    start = Path(config.init.from_).name or config.init.from_
    story = [f"Task {config.task.name}, fine-tuned from {fresh}{start}."]
    trained = f" of {rows['train']:,} rows" if "train" in rows else ""
    held_out = f", measured on {rows['validation']:,} others" if "validation" in rows else ""
    return [*story, f"Data: {_base_names(config.task.train)}{trained}{held_out}.", f"{length}."]


def _pretraining_quality(run: Run) -> list[str]:
    found = run.last("eval")
    where = "On held-out text" if found else "On the text that it trains on"
    values = found or run.last("train")
    parts = []
    for network in ("generator", "discriminator"):
        accuracy = values.get(f"{network}_accuracy")
        baseline = values.get(f"{network}_accuracy_baseline")
        if f"{network}_auc" in values:
            parts.append(
                f"the {network} tells replaced tokens with an AUC of "
                f"{short(values[f'{network}_auc'])} (a guess has 0.5)"
            )
        elif accuracy is not None and baseline is not None:
            parts.append(
                f"the {network} guesses {percent(accuracy)} of the tokens it has to guess (the "
                f"most frequent token alone: {percent(baseline)})"
            )
    if "minimal_pairs" in values:
        parts.append(f"it finds the better of two sentences in {percent(values['minimal_pairs'])}")
    return [f"{where} {', and '.join(parts)}."] if parts else []


def _finetuning_quality(run: Run) -> list[str]:
    results = run.results
    if not results:
        return ["The run has not ended: it has no results yet."]
    metric = results["metric"]
    ways = [f"{metric} {short(results['metrics'][metric])} at step {results['step']:,}"]
    names = {BASELINE: "the baseline", **LINEAR}
    ways += [
        f"{name} {short(results[kind][metric])}"
        for kind, name in names.items()
        if metric in results.get(kind, {})
    ]
    return [f"On rows it was not trained on: {'; '.join(ways)}."]


def _shown(metric: str, value: float) -> str:
    return percent(value) if metric.endswith(SHARES) else short(value)


def _figures(run: Run) -> list[Figure]:
    """At most four numbers, each beside its baseline."""
    if run.results:
        baseline = run.results.get(BASELINE, {})
        return [
            Figure(title(name), _shown(name, value), _beside(name, baseline.get(name)))
            for name, value in run.results["metrics"].items()
        ][:4]
    values = run.last("eval") or run.last("train")
    wanted = ("generator_accuracy", "discriminator_auc", "discriminator_accuracy",
              "minimal_pairs", "accuracy", "f1", "loss")  # fmt: skip
    figures = []
    for name in wanted:
        if name in values:
            baseline = 0.5 if name.endswith("_auc") else values.get(f"{name}_baseline")
            figures.append(Figure(title(name), _shown(name, values[name]), _beside(name, baseline)))
    return figures[:4]


def _beside(name: str, baseline: float | None) -> str:
    if baseline is None:
        return ""
    return f"{'a guess' if name.endswith('_auc') else 'baseline'} {_shown(name, baseline)}"


def _contenders(run: Run, others: list[Run]) -> list[Contender]:
    """A fine-tuning run, simpler ways and encoders that were never pretrained, on one metric."""
    results = run.results
    if not results:
        return []
    metric = results["metric"]
    found = [("this run", results["metrics"][metric], True)]
    for other in others:
        if metric in other.results.get("metrics", {}):
            config = other.config
            fresh = isinstance(config, FinetuneConfig) and config.init.fresh
            name = f"{other.name} (never pretrained)" if fresh else other.name
            found.append((name, other.results["metrics"][metric], False))
    for kind, name in {**LINEAR, BASELINE: "the baseline, without any model"}.items():
        if metric in results.get(kind, {}):
            found.append((name, results[kind][metric], False))
    return [
        Contender(name, _shown(metric, value), 100 * min(max(value, 0.0), 1.0), own)
        for name, value, own in found
    ]
