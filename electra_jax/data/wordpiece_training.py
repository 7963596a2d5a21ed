"""Trains a WordPiece vocabulary by merging pairs, the most frequent first.

The tokenizers library does the same by a table in an order that changes from run to run, and
among pairs of one frequency takes another one each time. Here ties are broken by the pieces'
own order.
"""

import collections
import heapq
from collections.abc import Iterator, Mapping, Sequence

from electra_jax.system.progress import Progress

PREFIX = "##"
LONGEST_WORD = 100  # characters; longer ones are unknown to BERT's tokenizer
COVERAGE = 0.9995  # of the characters, if the vocabulary has room for it


def wordpiece_vocabulary(
    words: Mapping[str, int],
    vocab_size: int,
    special_tokens: Sequence[str],
    character_coverage: float | None = None,
    progress: bool = False,
) -> list[str]:
    """Pieces in the order of their ids: special ones, characters, and what merges make.

    At first rarer characters are left out for the sake of longer pieces; then they take what
    the vocabulary leaves free.

    Args:
      words: how often each occurs.
      character_coverage: the share of all characters that gets pieces, by default as much as
        fits into a part of the vocabulary.
      progress: whether there is a bar.
    """
    words = {word: count for word, count in words.items() if len(word) <= LONGEST_WORD}
    room = vocab_size - len(special_tokens)
    forms, frequencies = _characters(words)
    by_frequency = sorted(frequencies, key=lambda c: (-frequencies[c], c))
    alphabet = _alphabet(by_frequency, frequencies, forms, room, character_coverage)
    pieces = sorted(form for character in alphabet for form in forms[character])
    spelt = [(word, count) for word, count in sorted(words.items()) if alphabet.issuperset(word)]
    with Progress(room, unit="pieces", initial=len(pieces), shown=progress) as bar:
        for piece in _merge(spelt, pieces):
            if len(pieces) >= room:
                break
            pieces.append(piece)
            bar.move(len(pieces))
    if character_coverage is None:
        for character in by_frequency:
            new = forms[character] - {*pieces} if character not in alphabet else set()
            if len(pieces) + len(new) <= room:
                pieces += sorted(new)
    return [*special_tokens, *(piece for piece in pieces if piece not in special_tokens)]


def _characters(
    words: Mapping[str, int],
) -> tuple[dict[str, set[str]], collections.Counter[str]]:
    """Of each character the pieces it needs, and how often it occurs."""
    forms: dict[str, set[str]] = collections.defaultdict(set)
    frequencies: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        forms[word[0]].add(word[0])
        frequencies[word[0]] += count
        for character in word[1:]:
            forms[character].add(PREFIX + character)
            frequencies[character] += count
    return forms, frequencies


def _alphabet(
    by_frequency: Sequence[str],
    frequencies: Mapping[str, int],
    forms: Mapping[str, set[str]],
    room: int,
    coverage: float | None,
) -> set[str]:
    """The characters that words are spelt in while pieces are merged."""
    total = sum(frequencies.values())
    small = room if coverage is not None else max(room // 4, 64)
    large = min(room, max(room // 2, 64))
    alphabet: set[str] = set()
    covered = pieces = 0
    for character in by_frequency:
        enough = covered >= total * (COVERAGE if coverage is None else coverage)
        pieces += len(forms[character])
        if pieces > (min(small, large) if enough and coverage is None else large):
            break
        if enough and coverage is not None:
            break
        alphabet.add(character)
        covered += frequencies[character]
    return alphabet


def _merge(words: Sequence[tuple[str, int]], alphabet: Sequence[str]) -> Iterator[str]:
    """New pieces, the most frequent pair of pieces joined each time; ties by ids."""
    names = list(alphabet)
    ids = {name: id for id, name in enumerate(names)}
    spelt = [[ids[word[0]], *(ids[PREFIX + c] for c in word[1:])] for word, _ in words]
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    where: dict[tuple[int, int], set[int]] = collections.defaultdict(set)
    for index, (symbols, (_, count)) in enumerate(zip(spelt, words, strict=True)):
        for pair in zip(symbols, symbols[1:], strict=False):
            counts[pair] += count
            where[pair].add(index)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    while heap:
        negative, pair = heapq.heappop(heap)
        count = counts.get(pair, 0)
        if count != -negative:
            # Less by other merges; if it is more, it was pushed again then.
            if 0 < count < -negative:
                heapq.heappush(heap, (-count, pair))
            continue
        name = names[pair[0]] + names[pair[1]].removeprefix(PREFIX)
        if name not in ids:
            ids[name] = len(names)
            names.append(name)
            yield name
        changes: collections.Counter[tuple[int, int]] = collections.Counter()
        for index in where.pop(pair):
            spelt[index] = _join(
                spelt[index], pair, ids[name], words[index][1], changes, where, index
            )
        del counts[pair]
        for changed, change in changes.items():
            if changed != pair and change:
                counts[changed] += change
                if change > 0:
                    heapq.heappush(heap, (-counts[changed], changed))


def _join(
    symbols: list[int],
    pair: tuple[int, int],
    joined: int,
    count: int,
    changes: collections.Counter[tuple[int, int]],
    where: dict[tuple[int, int], set[int]],
    index: int,
) -> list[int]:
    """A word with a pair joined; notes which pairs become rarer, and which arise where."""
    left, right = pair
    result: list[int] = []
    position = 0
    while position < len(symbols):
        symbol = symbols[position]
        position += 1
        if symbol == left and position < len(symbols) and symbols[position] == right:
            position += 1
            if result:
                changes[result[-1], left] -= count
                changes[result[-1], joined] += count
                where[result[-1], joined].add(index)
            if position < len(symbols):
                changes[right, symbols[position]] -= count
                changes[joined, symbols[position]] += count
                where[joined, symbols[position]].add(index)
            symbol = joined
        result.append(symbol)
    return result
