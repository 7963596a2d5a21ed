"""Randomness as a function of a key and a number, with no state to save.

A keyed bijection on row numbers gives a shuffled epoch of any size at any place in O(1).
"""

import numpy as np

ROUNDS = 6


def mix(values: np.ndarray, key: int) -> np.ndarray:
    """A well-mixed uint64 for each value and key (the finaliser of SplitMix64)."""
    x = np.asarray(values, np.uint64) + np.uint64(key * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*numbers: int) -> int:
    """One key made of several numbers; their order matters."""
    key = 0
    for number in numbers:
        key = int(mix(np.array([key ^ (number + 1)]), 1)[0])
    return key


def uniform(values: np.ndarray, key: int) -> np.ndarray:
    """A float64 in [0, 1) for each value and key."""
    return (mix(values, key) >> np.uint64(11)) * 2.0**-53


def permute(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """The image of each index of range(size) under the permutation that `key` names.

    A Feistel network permutes the next power of four; what falls outside of range(size)
    is permuted again until it falls inside (cycle walking), four times at most on average.

    Args:
      indices: int64, each in range(size).

    Returns:
      int64, as many.
    """
    bits = max(1, (int(size - 1).bit_length() + 1) // 2)
    result = _feistel(np.asarray(indices).astype(np.uint64), bits, key)
    while (outside := result >= size).any():
        result[outside] = _feistel(result[outside], bits, key)
    return result.astype(np.int64)


def _feistel(x: np.ndarray, bits: int, key: int) -> np.ndarray:
    shift, low = np.uint64(bits), np.uint64(2**bits - 1)
    left, right = x >> shift, x & low
    for number in range(ROUNDS):
        left, right = right, left ^ (mix(right, key + number) & low)
    return (left << shift) | right
