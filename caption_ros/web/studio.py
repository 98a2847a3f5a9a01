# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One model behind a page: what is asked of it comes one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from caption_ros.annotate import annotate
from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.pipeline import caption_marked
from caption_ros.region import Region


@dataclass(frozen=True)
class Wish:
    """What somebody at the page wants.

    Attributes:
        model: Name of a model that the page offers.
        options: Focus, prompt, beams.
    """

    model: str
    options: CaptionOptions


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Attributes:
        captions: The captions.
        latency_s: Time for them, without waiting for the model, seconds.
        picture: The image with them on it, shape (H, W, 3), uint8.
    """

    captions: tuple[Caption, ...]
    latency_s: float
    picture: npt.NDArray[np.uint8]


class Studio:
    """Loads the model that is wanted and asks it, both on one thread of its own.

    The page has a thread for each request, and torch computes fastest on one thread alone.

    Args:
        models: Names of the models that may be wanted, at least one.
        load: Loads a captioner by name.
    """

    def __init__(self, models: Sequence[str], load: Callable[[str], Captioner]) -> None:
        self.models = list(models)
        self._load = load
        self._thread = ThreadPoolExecutor(1, 'captioner')
        self._captioner: Captioner | None = None
        self._loaded = ''

    def start(self) -> None:
        """Load the first model, so that a mistake shows at once."""
        self._thread.submit(self._use, self.models[0]).result()

    def ask(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region] | None,
            wish: Wish) -> Answer:
        """Caption a picture, or the regions of it.

        Args:
            rgb: Image, shape (H, W, 3), uint8.
            regions: Regions of it; None asks for the whole scene.
            wish: Model and options.

        Raises:
            CaptionRosError: If the model cannot be loaded or cannot do what is wished.
        """
        captions, latency_s = self._thread.submit(self._caption, rgb, regions, wish).result()
        picture = annotate(rgb, [(caption.region, caption.text) for caption in captions])
        return Answer(tuple(captions), latency_s, picture)

    def close(self) -> None:
        """Free the model."""
        self._thread.shutdown()
        if self._captioner is not None:
            self._captioner.close()
        self._captioner, self._loaded = None, ''

    def _caption(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region] | None,
                 wish: Wish) -> tuple[list[Caption], float]:
        captioner = self._use(wish.model)
        started_s = time.perf_counter()
        captions = caption_marked(rgb, regions, captioner, replace(wish.options, describe='auto'))
        return captions, time.perf_counter() - started_s

    def _use(self, name: str) -> Captioner:
        if self._captioner is None or self._loaded != name:
            captioner = self._load(name)  # first: if this fails the other one stays
            if self._captioner is not None:
                self._captioner.close()
            self._captioner, self._loaded = captioner, name
        return self._captioner
