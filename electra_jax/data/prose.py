"""From documentation with markup and code in it to paragraphs that read as English."""

import re
from collections.abc import Iterator

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_DOCTEST = re.compile(r"^[ \t]*>>> .*?(?:^[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_HTML_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

_DIRECTIVE = re.compile(r"\.\.(?: |$)")
_KEPT_DIRECTIVE = re.compile(
    r"\.\. (?:note|warning|tip|important|hint|caution|attention|seealso|admonition)::\s*(.*)"
)
_BORDER = re.compile(r"[-=~^\"'`#*+_.:|<> ]{3,}$")  # a heading's underline, a table's edge
_ITEM_MARK = re.compile(
    r"[-*+•] +|\(?(?:\d{1,2}|[a-z])[.)] +"  # lists
    r"|:(?:param|arg|raises?|returns?|type|ivar)[^:]*: *|[@\\]\w+ "  # Sphinx and Doxygen fields
)
_ARGUMENT_MARK = re.compile(  # `name (type): `, Google's style
    r"[`*]*[\w.]+[`*]*(?:, [`*]*[\w.]+[`*]*){0,3}(?: ?\([^()]*(?:\([^()]*\)[^()]*)*\))?"
    r" ?(?:--?|:) +(?=\S)"
)

_INLINE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"!\[[^\]]*\]\([^)]*\)", ""),  # images
        (r"\[([^\]\[]+)\](?:\([^)\s]*\)|\[[^\]]*\])", r"\1"),  # links in Markdown
        (r"`([^`<]+?)\s*<[^`>]*>`__?", r"\1"),  # links in reST
        (r":[\w:+-]+:`([^`<]+?)\s*<[^`>]*>`", r"\1"),  # roles with a title
        (r":[\w:+-]+:`[~!](?:[^`]*\.)?([^`]*)`", r"\1"),  # :func:`~a.b` reads b
        (r":[\w:+-]+:`\.?([^`]*)`", r"\1"),  # other roles
        (r"\s*\[#?\w{1,12}\]_", ""),  # footnote marks
        (r"\s*[(<\[](?:https?|ftp)://[^\s>)\]]*[>)\]]", ""),  # addresses in brackets
        (r"``?([^`]*)``?_{0,2}", r"\1"),
        (r"\|([A-Z]\w+)\|", r"\1"),  # substitutions
        (r"(?<![\w*])(\*{1,3})(?=\S)([^*]*?[^*\s])\1(?![\w*])", r"\2"),  # emphasis
        (r"</?[a-zA-Z][^<>]{0,80}>", ""),  # HTML
        (r"\\([*_`|])", r"\1"),
        (r"\s+", " "),
        (r" ([.,;:)])", r"\1"),
        (r"::$", ":"),
    ]
]

_SENTENCE_BREAK = re.compile(r"(?<=[.!?:]) +(?=[A-Z])")
_LEGAL = re.compile(
    r"copyright \(|\(c\) (?:19|20)\d\d|copyright (?:19|20)\d\d|licensed under", re.I
)
_START = re.compile(r"[\"'(]?[A-Z]")
_END = tuple(".!?:)\"'")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*$")
_COMMON_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "do",
        "does",
        "each",
        "for",
        "from",
        "has",
        "have",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "may",
        "must",
        "no",
        "not",
        "of",
        "on",
        "only",
        "or",
        "should",
        "so",
        "than",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "use",
        "used",
        "was",
        "we",
        "when",
        "where",
        "which",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
_CODE = re.compile(r"[{}\\$@^~<>]|%\(|->|==|\w\(\w|\b_\w|::|\.{4}|\s\|\s|__|[;=]$")


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of `text` (reST, Markdown, or a docstring of any style) that are prose.

    Left out: code, doctests, tables, headings, directives such as `.. versionadded::`,
    sentences around a bare web address, and names and types in lists of parameters (their
    descriptions stay). Roles, links and emphasis become the words they show.
    """
    text = text.expandtabs(4)
    for mark, pattern in (("```", _FENCE), ("~~~", _FENCE), (">>>", _DOCTEST)):
        if mark in text:
            text = pattern.sub("\n", text)
    if "<!--" in text:
        text = _HTML_COMMENT.sub("", text)
    for paragraph in _blocks(text):
        for pattern, replacement in _INLINE:
            paragraph = pattern.sub(replacement, paragraph)
        if "://" in paragraph:
            sentences = _SENTENCE_BREAK.split(paragraph)
            paragraph = " ".join(sentence for sentence in sentences if "://" not in sentence)
        paragraph = paragraph.strip()
        if is_prose(paragraph):
            yield paragraph


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph without markup reads as English sentences."""
    if len(paragraph) < 40 or not paragraph.endswith(_END) or not _START.match(paragraph):
        return False
    words = paragraph.split()
    plain = common = 0
    for word in words:
        word = word.strip(".,;:!?()[]\"'").lower()
        plain += _WORD.match(word) is not None
        common += word in _COMMON_WORDS
    return (
        len(words) >= 7
        and plain >= 0.8 * len(words)
        and common >= 0.2 * len(words)
        and len(_CODE.findall(paragraph)) <= len(words) // 40
        and not _LEGAL.search(paragraph)
    )


def _blocks(text: str) -> Iterator[str]:
    """Joins lines to paragraphs, list items and descriptions of parameters.

    Indentation decides: a change of it starts a block, except that an item's further lines
    are indented more than its first.
    """
    blocks: list[list[str]] = [[]]
    is_item = False
    first = last = 0  # indentation of the block's first and last line
    hidden: int | None = None  # lines indented more than this belong to code or a directive
    for line in text.split("\n"):
        block = blocks[-1]
        content = line.strip()
        if not content:
            if block:
                if block[-1].endswith("::"):
                    hidden = first
                blocks.append([])
            continue
        depth = len(line) - len(line.lstrip())
        if hidden is not None:
            if depth > hidden:
                continue
            hidden = None
        if _BORDER.match(content):
            block.clear()
            continue
        if _DIRECTIVE.match(content):
            kept = _KEPT_DIRECTIVE.match(content)
            if kept:
                blocks.append([kept[1]] if kept[1] else [])
                first, last, is_item = depth, depth, True
            else:
                blocks.append([])
                hidden = depth
            continue
        mark = _ITEM_MARK.match(content)
        if depth and not mark and not (block and is_item and depth > first):
            mark = _ARGUMENT_MARK.match(content)
        if not block or mark or _starts_block(content, block[-1], depth, first, last, is_item):
            first, is_item = depth, mark is not None
            blocks.append([content[mark.end() :] if mark else content])
        else:
            block.append(content)
        last = depth
    return (" ".join(block) for block in blocks if block)


def _starts_block(
    content: str, previous: str, depth: int, first: int, last: int, is_item: bool
) -> bool:
    if is_item:
        return depth < last and depth <= first
    if depth > last:  # a hanging indent goes on in lower case
        return previous.endswith(":") or not content[0].islower()
    return depth < last
