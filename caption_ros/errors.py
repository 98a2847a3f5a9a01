# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the package: each text says what came, what was wanted and what to do."""


class CaptionRosError(Exception):
    """Base of all errors that the package raises on purpose."""


class ImageFormatError(CaptionRosError, ValueError):
    """An image or mask that cannot be read as what it says it is."""


class RegionError(CaptionRosError, ValueError):
    """A mask, label image or box that holds no usable region."""


class OptionError(CaptionRosError, ValueError):
    """A parameter value that is not allowed."""


class CheckpointError(CaptionRosError, ValueError):
    """A model that is unknown, missing, damaged or of another family."""


class RecordingError(CaptionRosError, ValueError):
    """A recording that is missing, damaged or holds nothing to caption."""


class OutputError(CaptionRosError):
    """A result that could not be written."""


class CaptionError(CaptionRosError):
    """A model that failed or said nothing."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error; with its type when it is not one of the package's own."""
    text = next(iter(str(error).strip().splitlines()), '')
    return text if isinstance(error, CaptionRosError) else f'{type(error).__name__}: {text}'
