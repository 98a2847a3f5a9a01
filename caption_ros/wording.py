# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a caption means, for comparing, and how to say that something came or went."""

from __future__ import annotations

import re

# Words that captions gain and lose without saying anything else. Places (under, behind, left)
# are not among them.
_EMPTY = frozenset("""
    a an the some this that these those there here it its they their he she his her i you we
    is are was were be been being am has have had do does can could appears appear seems seem
    of in on at to by for from with and or as into onto which who whose what while
    image picture photo photograph view scene shows showing shown see seen depicts close up very
    """.split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_ENDINGS = ('ing', 'ed', 'es', 's')
_LEAST_STEM = 3
_MOST_WORDS_OF_A_PHRASE = 14


def content_words(text: str) -> frozenset[str]:
    """Return the words that carry the meaning of a caption, inflection cut off.

    Order does not count: "a red mug and a blue ball" is "a ball that is blue, a red mug". Made
    for English; in other languages every word counts. Where nothing is left, the whole text is
    the one word, so that no caption means nothing.
    """
    words = _WORD.findall(text.casefold())
    return frozenset(_stem(word) for word in words if word not in _EMPTY) or frozenset(
        [' '.join(text.casefold().split())])


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        stem = word[:-len(ending)]
        if word.endswith(ending) and len(stem) >= _LEAST_STEM and not word.endswith('ss'):
            doubled = ending in ('ing', 'ed') and stem[-1] == stem[-2]
            stem = stem[:-1] if doubled else stem
            return stem.removesuffix('e') if len(stem) > _LEAST_STEM else stem
    return word.removesuffix('e') if len(word) > _LEAST_STEM else word


def appeared(text: str) -> str:
    """Say that what a caption describes is new: "a red mug appeared"."""
    text = _bare(text)
    return f'{text} appeared' if _is_phrase(text) else f'new: {text}'


def gone(text: str) -> str:
    """Say that what a caption described is there no more: "the red mug is gone"."""
    text = _bare(text)
    if not _is_phrase(text):
        return f'gone: {text}'
    article, _, rest = text.partition(' ')
    if article.lower() in ('a', 'an', 'the') and rest:
        return f'the {rest} is gone'
    return f'{text} disappeared'


def _bare(text: str) -> str:
    return text.strip().rstrip('.').rstrip()


def _is_phrase(text: str) -> bool:
    """Tell a phrase from sentences, which nothing can be hung on."""
    return not re.search(r'[.!?;:]', text) and len(text.split()) <= _MOST_WORDS_OF_A_PHRASE
