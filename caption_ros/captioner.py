# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every captioner offers, and the options that a caller may set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.errors import OptionError
from caption_ros.region import Region

# An image, (H, W, 3) uint8, with the regions of it to caption; None stands for the whole scene.
Frame = tuple[npt.NDArray[np.uint8], Sequence[Region | None]]

FOCUS_MODES = ('auto', 'alpha', 'attention', 'crop')
DESCRIBE_MODES = ('auto', 'scene', 'regions', 'both')
MOST_PROMPT_LETTERS = 2000  # longer than any model reads
MOST_BEAMS = 16


@dataclass(frozen=True)
class CaptionOptions:
    """How to caption a frame.

    Attributes:
        focus: How a model looks at a region; auto takes what suits the model.
        describe: auto (regions when there are masks, else the scene), scene, regions, both.
        max_regions: Regions of a frame at most, 1..256; the largest stay.
        min_region_area_px: Smaller regions are left out, in pixels.
        max_new_tokens: Tokens of a caption at most, 1..512.
        num_beams: 1 is greedy search, up to 16 beams.
        recall: Greedy search of GPT-2, BERT and BLIP decoders: try first what was said of what
            looked most alike, many words in one look; what is wrong is searched as without. In
            bfloat16, float16 and int8 the same word stays where it is within rounding of the
            likeliest, so a caption may depend on earlier ones.
        prompt: For models that take text: the beginning of the caption, or the question; at
            most 2000 letters.
        sample: Draw captions by nucleus sampling instead of searching for the likeliest; the
            same frame gives the same captions each time.
        candidates: With a filter: captions sampled for each region, 1..16; the best is kept. 1
            is the search's own.
        filter_threshold: With a filter: least match of a caption, 0..1; others are held back.
    """

    focus: str = 'auto'
    describe: str = 'auto'
    max_regions: int = 16
    min_region_area_px: int = 64
    max_new_tokens: int = 48
    num_beams: int = 1
    recall: bool = False
    prompt: str = ''
    sample: bool = False
    candidates: int = 1
    filter_threshold: float = 0.5

    def __post_init__(self) -> None:
        _check_choice('focus', self.focus, FOCUS_MODES)
        _check_choice('describe', self.describe, DESCRIBE_MODES)
        _check_range('max_regions', self.max_regions, 1, 256)
        _check_range('min_region_area_px', self.min_region_area_px, 1, 100_000_000)
        _check_range('max_new_tokens', self.max_new_tokens, 1, 512)
        _check_range('num_beams', self.num_beams, 1, MOST_BEAMS)
        if not isinstance(self.prompt, str):
            raise OptionError(f'prompt must be text, got {self.prompt!r}')
        if len(self.prompt) > MOST_PROMPT_LETTERS:
            raise OptionError(f'prompt must be of at most {MOST_PROMPT_LETTERS} letters, got '
                              f'{len(self.prompt)}')
        _check_range('candidates', self.candidates, 1, 16)
        if not 0.0 <= self.filter_threshold <= 1.0:
            raise OptionError(f'filter_threshold must be in 0..1, got {self.filter_threshold!r}')
        if self.num_beams > 1 and (self.sample or self.candidates > 1):
            raise OptionError(f'num_beams is {self.num_beams} and captions are to be sampled; '
                              'wanted num_beams 1, or candidates 1 and no sampling')


class Captioner(Protocol):
    """A model that captions regions of an image.

    Of an image that is no more it keeps nothing but what options.recall is for.

    It may also have ``prepare(rgb, regions, options)``: what can be done of an image that it is
    about to be asked for, before the model has to compute; called on another thread. One that
    takes no text has ``takes_prompt``, and it is False.

    Attributes:
        name: The name or path it was loaded by.
        family: The kind of model, such as blip.
        focus_modes: Ways it can look at a region, the one that auto takes first.
        device: torch's name of the device, such as cpu or cuda:0.
        dtype: Name of the number type of the weights, such as float32.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def family(self) -> str: ...  # noqa: D102

    @property
    def focus_modes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def dtype(self) -> str: ...  # noqa: D102

    def caption(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                options: CaptionOptions) -> list[Caption]:
        """Caption each region of an image, in one batch.

        Args:
            rgb: Image, shape (H, W, 3), uint8.
            regions: Regions of this image; None stands for the whole scene.
            options: Focus, search and prompt; the rest is the pipeline's.

        Returns:
            One caption for each region, in the same order.

        Raises:
            OptionError: If the model cannot do what an option asks.
            CaptionError: If the model fails or says nothing.
        """
        ...

    def caption_frames(self, frames: Sequence[Frame],
                       options: CaptionOptions) -> list[list[Caption]]:
        """Caption each region of several images, in one batch.

        Args:
            frames: Images with the regions of each, as caption() takes them.
            options: Focus, search and prompt; the rest is the pipeline's.

        Returns:
            The captions of each image, in the same order; what caption() returns for it.

        Raises:
            OptionError: If the model cannot do what an option asks.
            CaptionError: If the model fails, or says nothing of a region.
        """
        ...

    def facts(self) -> dict[str, str]:
        """Return how the model computes, by name, for diagnostics."""
        ...

    def problems(self) -> list[str]:
        """Say what is not as it was asked for, one sentence each; empty when all is."""
        ...

    def close(self) -> None:
        """Free the model's memory; the captioner is of no use afterwards."""
        ...


def check_focus(captioner: Captioner, focus: str) -> str:
    """Return the focus mode that a captioner will use.

    Raises:
        OptionError: If the captioner has no such mode.
    """
    _check_choice('focus', focus, FOCUS_MODES)
    if focus == 'auto':
        return captioner.focus_modes[0]
    if focus not in captioner.focus_modes:
        raise OptionError(f'focus {focus!r} is not possible with model {captioner.name!r}: '
                          f'it has {", ".join(captioner.focus_modes)} (or auto)')
    return focus


def check_prompt(captioner: Captioner, prompt: str) -> None:
    """Raise OptionError where a prompt is given to a captioner that takes no text."""
    if prompt and not getattr(captioner, 'takes_prompt', True):
        raise OptionError(f'prompt {prompt!r} cannot be used: model {captioner.name!r} '
                          f'({captioner.family}) takes no text; leave prompt empty')


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f'{name} must be one of {", ".join(allowed)}, got {value!r}')


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f'{name} must be a whole number in {low}..{high}, got {value!r}')
