"""How good an answer to a question is: exact match and F1, as the official evaluation has them."""

import collections
import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from electra_jax.data.segmentation import space_out


def normalise_answer(text: str) -> str:
    """Lower case, without punctuation, articles and spare spaces (the official evaluation).

    Of text beyond ASCII the form is NFC, and characters that cannot be seen are left out.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def answer_words(text: str) -> list[str]:
    """The words that F1 counts; in scripts without spaces, characters."""
    return space_out(normalise_answer(text)).split()


def exact_match(guess: str, truth: str) -> float:
    return float(normalise_answer(guess) == normalise_answer(truth))


def token_f1(guess: str, truth: str) -> float:
    """F1 of words; where either is empty, whether both are."""
    ours, theirs = answer_words(guess), answer_words(truth)
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def best_of(metric: Callable[[str, str], float], guess: str, truths: Sequence[str]) -> float:
    """The best over the true answers; with none, the true answer is empty."""
    kept = [truth for truth in truths if normalise_answer(truth)]
    return max(metric(guess, truth) for truth in kept or [""])
