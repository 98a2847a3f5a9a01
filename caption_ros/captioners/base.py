# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What all captioners do alike: check the options, look, put the words into captions."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions, Frame, check_focus
from caption_ros.captioners.acceleration import (
    Acceleration,
    Prepared,
    attention_by,
    save_tuning,
)
from caption_ros.captioners.batches import Batches
from caption_ros.captioners.decoding import Decoded
from caption_ros.captioners.devices import cpu_multiplies, device_label
from caption_ros.captioners.kernels import kernels_state
from caption_ros.captioners.side_by_side import threads
from caption_ros.errors import CaptionError, CaptionRosError, OptionError
from caption_ros.region import Region

_SMALL = 30_000_000  # weights
_MANY = 12  # captions of a batch that pay for threads that wait for each other


def _main_dtype(model: Any) -> Any:
    """Return the number type of most weights; a few may have to stay in float32."""
    counts: Counter[Any] = Counter()
    for weight in model.parameters():
        counts[weight.dtype] += weight.numel()
    return counts.most_common(1)[0][0]


def number_type(model: Any) -> str:
    """Return the name of the number type of a model's or of its part's weights."""
    if any(getattr(module, 'packed_dtype', '') == 'int8' for module in model.modules()):
        return 'int8'
    return str(_main_dtype(model)).removeprefix('torch.')


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and 'TorchScript' in lines[0]:
        lines = lines[-1:]  # what comes before are places in the compiled code
    return ' '.join(' '.join(lines).split())[:300]


class BaseCaptioner:
    """Base of captioners; a subclass looks at regions and turns tokens into text.

    Attributes:
        name: The name or path it was loaded by.
        family: The kind of model.
        focus_modes: Ways to look at a region, the one that auto takes first.
        device: torch's name of the device.
        dtype: Name of the number type of the weights; bfloat16+float32 or bfloat16+int8 with an
            encoder in the one and a decoder in the other.
        batches: What memory has allowed so far.
    """

    family = ''

    def __init__(self, name: str, model: Any, *, focus_modes: tuple[str, ...],
                 device: str) -> None:
        """Take a loaded model over.

        Args:
            name: The name or path it was loaded by.
            model: The model, on its device.
            focus_modes: Ways to look at a region.
            device: torch's name of the device.
        """
        self.name = name
        self.focus_modes = focus_modes
        self.device = device
        self._dtype = _main_dtype(model)
        packed = [module for module in model.modules() if hasattr(module, 'packed_numbers')]
        self.dtype = number_type(model)
        self._model = model
        self.batches = Batches(name, device)
        self._is_packed = bool(packed)
        # Threads that wait for each other gain a small model nothing, and lose it several times
        # its own time as soon as camera and segmenter want the cores too.
        self._is_small = device == 'cpu' and _SMALL > (
            sum(weight.numel() for weight in model.parameters())
            + sum(module.packed_numbers for module in packed))
        self._threads = 1  # of torch's, before a small model has its way
        self._turn = threading.RLock()  # for one caller at a time; close() waits for its turn, too
        self._acceleration = Acceleration()
        self._prepared = Prepared({})

    def accelerate(self, acceleration: Acceleration, prepared: Prepared) -> None:
        """Compute as is asked for from now on.

        Args:
            acceleration: What is asked for.
            prepared: What prepare() returned for it.

        Raises:
            OptionError: If this model cannot be compiled.
        """
        self._acceleration = acceleration
        self._prepared = prepared
        if acceleration.compile != 'none':
            self._compile(acceleration.compile)

    def facts(self) -> dict[str, str]:
        """Return how the model computes, by name, for diagnostics."""
        kernels = {'kernels': kernels_state()} if self._is_packed else {}
        return self._prepared.facts | kernels | {
            'captions in a batch at most': str(self.batches.limit or 'no limit'),
            'batches out of memory': str(self.batches.halvings)}

    def problems(self) -> list[str]:
        """Say what is not as it was asked for, one sentence each."""
        found = [self._prepared.problem] if self._prepared.problem else []
        found += [f'this CPU cannot multiply {name} and takes several times as long as with '
                  'float32: set dtype to auto' for name in self.dtype.split('+')
                  if self.device == 'cpu' and not cpu_multiplies(name)]
        if self.batches.halvings:
            found.append(f'memory allows {self.batches.limit} caption(s) in a batch: lower '
                         'max_regions, or choose a smaller model or dtype')
        return found

    def caption(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                options: CaptionOptions) -> list[Caption]:
        """Caption each region of an image in one batch; see Captioner."""
        return self.caption_frames([(rgb, regions)], options)[0]

    def caption_frames(self, frames: Sequence[Frame],
                       options: CaptionOptions) -> list[list[Caption]]:
        """Caption each region of several images in one batch; see Captioner."""
        focus = check_focus(self, options.focus)
        self._check_prompt(options.prompt)
        with self._turn:
            if self._model is None:
                raise CaptionError(f'model {self.name!r} has been closed')
            return self._captioned(frames, focus, options)

    def _captioned(self, frames: Sequence[Frame], focus: str,
                   options: CaptionOptions) -> list[list[Caption]]:
        if options.sample and len(frames) > 1:  # chance would depend on the other frames
            return [self.caption(*frame, options) for frame in frames]
        shown = [frame for frame in frames if frame[1]]
        if not shown:
            return [[] for _ in frames]
        try:
            with self._computing(sum(len(regions) for _, regions in shown)):
                decoded = self.batches.run(
                    shown, lambda some: self._look(some, focus, options))
        except CaptionRosError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise CaptionError(f'model {self.name!r} failed on {device_label(self.device)}: '
                               f'{_reason(error)}') from error
        if not all(map(math.isfinite, decoded.scores)):
            raise CaptionError(f'model {self.name!r} computed no number in {self.dtype} on '
                               f'{device_label(self.device)}; use dtype float32')
        said = zip(decoded.tokens, decoded.scores)
        return [[self._caption(region, *next(said), focus, options.prompt) for region in regions]
                for _, regions in frames]

    def close(self) -> None:
        """Free the model's memory, after a caption in work."""
        with self._turn:
            self._free()

    def _free(self) -> None:
        self._model = None
        if self.device != 'cpu':
            import torch

            save_tuning()
            torch.cuda.empty_cache()

    @contextmanager
    def _computing(self, captions: int = 1) -> Iterator[None]:
        """Let the model compute in its own way, for a batch of so many captions."""
        import torch

        self._threads = torch.get_num_threads()
        alone = self._is_small and captions < _MANY
        with torch.inference_mode(), threads(1) if alone else nullcontext(), \
                attention_by(self._acceleration.attention):
            yield

    def _compile(self, mode: str) -> None:
        """Compile what can be; see accelerate."""
        raise OptionError(f'compile {mode!r} cannot be used with model '
                          f'{self.name!r}: of the {self.family} family nothing is compiled; set '
                          'compile to none')

    def _caption(self, region: Region | None, tokens: list[int], score: float, focus: str,
                 prompt: str) -> Caption:
        text = self._text(tokens, prompt)
        if not text:
            raise CaptionError(f'model {self.name!r} gave an empty caption')
        return Caption(text, score, 'none' if region is None else focus, region)

    def _check_prompt(self, prompt: str) -> None:
        raise NotImplementedError

    def _look(self, frames: Sequence[Frame], focus: str, options: CaptionOptions) -> Decoded:
        """Return what is said of each region of the first frame, then of the second, and so on."""
        raise NotImplementedError

    def _text(self, tokens: list[int], prompt: str) -> str:
        raise NotImplementedError
