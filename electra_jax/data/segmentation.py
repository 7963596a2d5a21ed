"""Words and sentences in any language, where ICU finds their ends.

ICU follows Unicode's rules, and a dictionary in the scripts that are written without spaces
(Chinese, Japanese, Thai, Lao, Khmer, Burmese).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from icu4py.breakers import CharacterBreaker, SentenceBreaker, WordBreaker

from electra_jax.data.text_files import without_surrogates

ANY_LANGUAGE = "root"
# Not after "Mr." and its like. Only some languages have a list; English is the commonest.
_SENTENCES_LOCALE = "en@ss=standard"
_ASCII_WORD = re.compile("[a-z0-9]+")
_BLANK_LINE = re.compile(r"\n\s*\n|\u2029")
_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x85\u2028]")
# Thai and Lao, Burmese, Khmer, kana, and Han of all planes.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
# Between sentences of these no space is written, unlike in Thai.
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


def words(text: str) -> list[str]:
    """The words of a text, case-folded and in Unicode's form NFKC, without punctuation.

    A word is letters, marks and digits. Of ASCII text these are the runs that the regular
    expression [a-z0-9]+ finds.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = unicodedata.normalize("NFC", without_surrogates(text))
    # The form NFKC comes last: it takes apart letters of Thai that the dictionary has whole.
    return [
        word
        for segment in WordBreaker(text, ANY_LANGUAGE)
        for word in _letters_and_digits(_fold(segment))
    ]


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFKC", folded)


def _letters_and_digits(segment: str) -> Iterator[str]:
    """Parts of a segment between punctuation (of don't, two), without invisible characters."""
    if segment.isalnum():
        yield segment
        return
    word = ""
    for character in [*segment, " "]:
        category = unicodedata.category(character)
        if category[0] in "LN" or (category[0] == "M" and word):
            word += character
        elif category != "Cf" and word:
            yield word
            word = ""


def sentences(text: str) -> list[str]:
    """The sentences of a text; a line break inside one becomes a space, a blank line ends one.

    A text without capital letters is read as if it had no others: a full stop before a small
    letter ends no sentence otherwise. Scripts without sentence marks (Thai, Lao) give a whole
    paragraph.
    """
    found = []
    for paragraph in _BLANK_LINE.split(without_surrogates(text)):
        line = _LINE_BREAK.sub(" ", paragraph)
        start = 0
        for piece in SentenceBreaker(_capitals(line), _SENTENCES_LOCALE):
            found.append(line[start : start + len(piece)].strip())
            start += len(piece)
    return [sentence for sentence in found if sentence]


def join_sentences(found: Iterable[str]) -> str:
    """Sentences as one text: a space between them, but for Chinese and Japanese."""
    text = ""
    for sentence in filter(None, found):
        # Quotation marks are the same as in other scripts.
        last, first = text.rstrip("”’")[-1:], sentence.lstrip("“‘")[:1]
        is_wide = _WIDE.match(last) and _WIDE.match(first)
        text += sentence if is_wide or not text else f" {sentence}"
    return text


def _capitals(text: str) -> str:
    """A text of small letters alone in capitals of the same number of characters."""
    if any(map(str.isupper, text)):
        return text
    return "".join(upper if len(upper := c.upper()) == 1 else c for c in text)


def space_out(text: str) -> str:
    """A text with spaces around each character of scripts that are written without them.

    Cut at spaces it then gives what evaluations of such languages count: characters.
    """
    if text.isascii() or not _WITHOUT_SPACES.search(text):
        return text
    return "".join(
        f" {character} " if _WITHOUT_SPACES.match(character) else character
        for character in CharacterBreaker(without_surrogates(text), ANY_LANGUAGE)
    )
