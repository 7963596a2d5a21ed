"""How fast a run was."""

import statistics

from electra_jax.reporting.numbers import count, duration, number, percent
from electra_jax.reporting.run import Run


def throughput(run: Run) -> list[tuple[str, str]]:
    """Names and figures; none of what was not logged."""
    rows = [("Length", f"{count(run.steps, 'step')} in {duration(run.seconds)}")]
    if run.tokens_per_step:
        rows.append(("Tokens a step", f"{run.tokens_per_step:,}"))
    rates = _logged(run, "train/tokens_per_second")
    if rates:
        rows.append(("Tokens a second", f"{number(statistics.median(rates))} (median), "
                     f"{number(max(rates))} at best"))  # fmt: skip
    shares = _logged(run, "train/mfu")
    if shares:
        text = f"{percent(statistics.median(shares))} (median), {percent(max(shares))} at best"
    else:
        text = "unknown, as the peak of the run’s devices is not known"
    return [*rows, ("Model FLOPs utilization", text)]


def _logged(run: Run, name: str) -> list[float]:
    return [line[name] for line in run.lines if line.get(name) is not None]
