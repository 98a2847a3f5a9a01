# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a captioner says about a region or about the whole scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caption_ros.region import Region


@dataclass(frozen=True)
class Caption:
    """One sentence about one region or about the whole scene.

    Attributes:
        text: The sentence, never empty.
        score: Geometric mean of the probabilities of the generated tokens, the end token
            included, 0..1. Comparable between captions of one model, not between models.
        focus: How the model looked at the region: alpha, attention or crop; none for the
            whole scene.
        region: What was described; None for the whole scene.
        match: Probability that the text describes the region, 0..1, by a filter; None without.
        held_back: True when the match is below the threshold: not for people.
    """

    text: str
    score: float
    focus: str
    region: Region | None
    match: float | None = None
    held_back: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the caption as JSON values, as in the ``captions`` topic."""
        region = None if self.region is None else {
            'label': None if self.region.label is None else int(self.region.label),
            'box': [int(edge) for edge in self.region.box],
            'area_px': int(self.region.area_px),
        } | {key: value for key, value in (('id', self.region.id), ('name', self.region.name))
             if value}
        out = {'text': self.text, 'score': round(float(self.score), 4), 'focus': self.focus,
               'region': region}
        if self.match is not None:
            out['match'] = round(float(self.match), 4)
        return out
