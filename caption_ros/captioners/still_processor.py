# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Processors of image-text models, for pictures alone.

Many of them also take videos, and transformers then builds a video processor, which needs
torchvision, and num2words for SmolVLM. A robot's torch often has no torchvision to match, and
nobody here shows the model a video, so that half is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from caption_ros.captioners.loading import load_whole_processor, read_json
from caption_ros.errors import CheckpointError

_NAMED_IN = ('processor_config.json', 'preprocessor_config.json', 'tokenizer_config.json')


def load_still_processor(folder: Path, model_type: str) -> Any:
    """Load tokenizer and image processor of a checkpoint folder as one.

    Args:
        folder: Checkpoint folder.
        model_type: Of its config.json; tells the processor where no file names one.

    Raises:
        CheckpointError: If a part is missing, damaged, or not to be had on this machine.
    """
    processor_class = _without_video(_processor_class(folder, model_type))
    with _spelled_numbers(processor_class):
        processor = load_whole_processor(processor_class, folder)
    for part in ('image_processor', 'tokenizer'):
        if getattr(processor, part, None) is None:
            raise CheckpointError(f'{folder} holds a {processor_class.__name__}, which has no '
                                  f'{part}; wanted a processor of images and text')
    return processor


def _processor_class(folder: Path, model_type: str) -> Any:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name, source = None, 'config.json'
    for file in _NAMED_IN:
        held = read_json(folder / file) if (folder / file).is_file() else {}
        if held.get('processor_class'):
            name, source = str(held['processor_class']), file
            break
    if name is None:
        name = str(PROCESSOR_MAPPING_NAMES.get(model_type))
    found = getattr(transformers, name, None)
    if not hasattr(found, 'from_pretrained'):
        raise CheckpointError(f'{folder / source} wants the processor {name}, which transformers '
                              f'{transformers.__version__} does not have; code that a checkpoint '
                              'brings along is never run')
    return found


def _without_video(whole: Any) -> Any:
    """Return a processor class that is loaded and works without its video processor."""
    parts = whole.get_attributes() if hasattr(whole, 'get_attributes') else []
    if 'video_processor' not in parts:
        return whole

    class Still(whole):  # type: ignore[misc]
        # SmolVLM's chat template asks it for these even when there is no video.
        video_processor = SimpleNamespace(num_frames=None, fps=None)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in parts if part != 'video_processor']

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            loaded = iter(super()._get_arguments_from_pretrained(*args, **kwargs))
            return [None if part == 'video_processor' else next(loaded) for part in parts]

    Still.__name__ = whole.__name__
    return Still


@contextmanager
def _spelled_numbers(processor_class: Any) -> Iterator[None]:
    """Let a processor be made that would spell out the number of a video's frames."""
    modules = [sys.modules[base.__module__] for base in processor_class.__mro__
               if getattr(sys.modules[base.__module__], 'num2words', True) is None]
    for module in modules:
        module.num2words = str  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in modules:
            module.num2words = None  # type: ignore[attr-defined]
