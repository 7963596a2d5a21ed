"""Numbers as people read them."""

import math

DASH = "–"
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def number(value: float | None) -> str:
    """Four digits at least, without an exponent where one can do without."""
    if value is None or not math.isfinite(value):
        return DASH
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def compact(value: float) -> str:
    """Three digits and a unit: 2.05M."""
    for size, unit in UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """Three digits, for prose."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"


def percent(value: float) -> str:
    return f"{value:.1%}"


def duration(seconds: float) -> str:
    """The two largest units of a time."""
    if not 0 <= seconds < 1e12:
        return "an unknown time"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        rest = round(seconds) % 60
        return f"{int(seconds // 60)} min" + (f" {rest} s" if seconds < 600 and rest else "")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days} days" + (f" {hours} h" if hours else "")


def count(value: int, noun: str) -> str:
    """A number with its noun in the right number."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")
