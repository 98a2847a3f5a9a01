# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A filter behind a captioner: the best of several captions, and none that does not fit.

The idea is BLIP's CapFilt (Li et al., ICML 2022, arXiv:2201.12086), used while captioning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions, Frame
from caption_ros.errors import CaptionError
from caption_ros.region import Region


class CaptionFilter(Protocol):
    """A model that tells how well a text fits an image or a region of it."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def match(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
              texts: Sequence[str]) -> list[float]:
        """Return the probability, 0..1, that each text describes its region.

        Args:
            rgb: Image, shape (H, W, 3), uint8.
            regions: The region of each text; None stands for the whole scene.
            texts: As many texts, none empty.

        Raises:
            CaptionError: If the model fails.
        """
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class FilteredCaptioner:
    """A captioner whose captions have passed a filter; works with every family.

    With ``candidates`` above 1 as many captions are sampled for each region and the one that
    fits best is kept. A caption whose match is below ``filter_threshold`` is marked as held back:
    it is for the log, not for people.

    Args:
        captioner: Says what is there; closed with this one.
        caption_filter: Judges it; closed with this one.
    """

    def __init__(self, captioner: Captioner, caption_filter: CaptionFilter) -> None:
        self._captioner = captioner
        self._filter = caption_filter
        self.name = captioner.name
        self.family = captioner.family
        self.focus_modes = captioner.focus_modes
        self.takes_prompt = getattr(captioner, 'takes_prompt', True)
        self.device = captioner.device
        self.dtype = captioner.dtype
        self.filter_name = caption_filter.name

    def prepare(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                options: CaptionOptions) -> None:
        """Do a part of what caption() does of the same image and regions; see Captioner."""
        if hasattr(self._captioner, 'prepare'):
            self._captioner.prepare(rgb, regions, options)

    def caption(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                options: CaptionOptions) -> list[Caption]:
        """Caption each region; see Captioner. Captions carry their match."""
        rows, drafting = _drafts(regions, options)
        return self._best(rgb, rows, self._captioner.caption(rgb, rows, drafting), options)

    def caption_frames(self, frames: Sequence[Frame],
                       options: CaptionOptions) -> list[list[Caption]]:
        """Caption each region of several images; see Captioner. Captions carry their match."""
        drafts = [(rgb, _drafts(regions, options)[0]) for rgb, regions in frames]
        said = self._captioner.caption_frames(drafts, _drafts((), options)[1])
        return [self._best(*draft, captions, options) for draft, captions in zip(drafts, said)]

    def _best(self, rgb: npt.NDArray[np.uint8], rows: Sequence[Region | None],
              captions: Sequence[Caption], options: CaptionOptions) -> list[Caption]:
        """Return the caption of each region that fits best; candidates lie side by side."""
        count = options.candidates
        matches = self._filter.match(rgb, rows, [caption.text for caption in captions])
        if not all(map(math.isfinite, matches)):
            raise CaptionError(f'filter {self.filter_name!r} computed no number; use dtype '
                               'float32')
        judged = [replace(caption, match=match, held_back=match < options.filter_threshold)
                  for caption, match in zip(captions, matches)]
        return [max(judged[i:i + count], key=lambda caption: (caption.match, caption.score))
                for i in range(0, len(judged), count)]

    def facts(self) -> dict[str, str]:
        """Return how the captioner computes; see Captioner."""
        return self._captioner.facts()

    def problems(self) -> list[str]:
        """Say what of captioner and filter is not as it should be; see Captioner."""
        of_filter = self._filter.problems() if hasattr(self._filter, 'problems') else []
        return [*self._captioner.problems(), *of_filter]

    def close(self) -> None:
        """Free the memory of captioner and filter."""
        self._captioner.close()
        self._filter.close()


def _drafts(regions: Sequence[Region | None],
            options: CaptionOptions) -> tuple[list[Region | None], CaptionOptions]:
    """Return each region as often as there are candidates, and the options to caption them."""
    count = options.candidates
    return ([region for region in regions for _ in range(count)],
            replace(options, candidates=1, sample=options.sample or count > 1))
