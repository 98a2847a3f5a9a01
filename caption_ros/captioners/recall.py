# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What was said of what looked most alike, which may well be said again.

Cameras that are captioned in turns, and regions that come, go and change places, find their own
words by what the encoder sees of them; whose row they were the last time does not matter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

_ROWS = 256  # captions of a prompt: as many as a frame may have regions
_PROMPTS = 8


class _Kept(NamedTuple):
    """Captions that begin alike, the newest first.

    Attributes:
        features: What they were said of, shape (captions, width), float32.
        said: Token ids of each.
        trusts: How many of these to try at once.
    """

    features: Any
    said: list[list[int]]
    trusts: list[int]


def features_of(hidden: Any, picks: Any, mask: Any | None) -> Any:
    """Return the mean of the encoder states that each row may look at, (rows, width), float32.

    Args:
        hidden: Encoder states, shape (images, encoder tokens, width).
        picks: The image that each row looks at, shape (rows,), int64.
        mask: Encoder tokens to look at, shape (rows, encoder tokens), int64; None is all.
    """
    rows, (images, tokens, _) = len(picks), hidden.shape
    shares = hidden.new_zeros(rows, images, tokens)
    shares[torch.arange(rows, device=picks.device), picks] = (
        1 / tokens if mask is None else (mask / mask.sum(1, keepdim=True)).to(hidden.dtype))
    return (shares.flatten(1) @ hidden.flatten(0, 1)).float()


class Recall:
    """Remembers the last captions of each of a few prompts.

    Threads may share one: what is remembered is replaced as a whole, never changed. Two that
    keep something at the same time may lose what one of them has said.
    """

    def __init__(self) -> None:
        self._prompts: dict[tuple[int, ...], _Kept] = {}  # used last comes last

    def closest(self, given: list[int], features: Any) -> tuple[Any, int]:
        """Return what was said of what looked most like each row, and how much of it to try.

        Args:
            given: The start token and what else the captions begin with.
            features: What to look for, shape (rows, width), float32.

        Returns:
            Token ids, shape (tokens, rows), int64, the last of them again where a caption is
            shorter than others, none if nothing is remembered; and how many to try at once.
        """
        kept = self._prompts.get(tuple(given))
        if kept is None:
            return torch.empty(0, len(features), dtype=torch.int64, device=features.device), 0
        # Of differences, as products are off by more than two frames in a row are. What is not
        # finite is like nothing; argmin would take it for the closest.
        distances = torch.cdist(features, kept.features,
                                compute_mode='donot_use_mm_for_euclid_dist')
        # Of several as close the first, which is the newest.
        rows = distances.nan_to_num(nan=torch.inf).argmin(1).tolist()
        said = [kept.said[row] for row in rows]
        length = max(map(len, said))
        words = [tokens + tokens[-1:] * (length - len(tokens)) for tokens in said]
        return (torch.tensor(words, device=features.device).t(),
                min(kept.trusts[row] for row in rows))

    def keep(self, given: list[int], features: Any, said: list[list[int]], trust: int) -> None:
        """Remember what was said.

        Args:
            given: The start token and what else the captions begin with.
            features: What it was said of, shape (rows, width), float32.
            said: Token ids of each row, at least one, with the end where there is one.
            trust: How many of these to try at once.
        """
        trusts = [trust] * len(said)
        older = self._prompts.pop(tuple(given), None)
        if older is not None:
            features = torch.cat([features, older.features[:max(0, _ROWS - len(said))]])
            said, trusts = said + older.said, trusts + older.trusts
        self._prompts[tuple(given)] = _Kept(features[:_ROWS], said[:_ROWS], trusts[:_ROWS])
        for prompt in list(self._prompts)[:-_PROMPTS]:
            self._prompts.pop(prompt, None)
