# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Parameters: declared with type, description and range; read into frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from caption_ros.captioner import DESCRIBE_MODES, FOCUS_MODES, CaptionOptions
from caption_ros.captioners.acceleration import (
    ATTENTIONS,
    COMPILE_MODES,
    FIND_MODES,
    TUNABLE_OPS,
    Acceleration,
)
from caption_ros.errors import OptionError

_CAMERA = re.compile(r'[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*')
_MOST_CAMERAS = 32
PEOPLE = ('none', 'faces', 'bodies')
Value = bool | int | float | str | list[str]

_TYPES = {bool: ParameterType.PARAMETER_BOOL, int: ParameterType.PARAMETER_INTEGER,
          float: ParameterType.PARAMETER_DOUBLE, str: ParameterType.PARAMETER_STRING,
          list: ParameterType.PARAMETER_STRING_ARRAY}

# What YAML has of each type.
_KINDS = {bool: 'true or false,', float: 'a number with a point,', int: 'a whole number,',
          list: 'a list,', str: 'text,'}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter as declared, documented and shipped in the configuration files.

    Attributes:
        name: Name.
        default: Default; its type is the parameter's type.
        description: What it does, one sentence.
        unit: Unit of a number.
        low: Least value of a number.
        high: Greatest value of a number.
        choices: Allowed texts; empty allows any.
        read_only: Fixed once the node runs.
        unconfigured_only: Changes only before the node is configured.
    """

    name: str
    default: Value
    description: str
    unit: str = ''
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    unconfigured_only: bool = False

    def descriptor(self, read_only: bool = False) -> ParameterDescriptor:
        """Return the descriptor to declare it with."""
        constraints = []
        if self.choices:
            constraints.append('one of ' + ', '.join(self.choices))
        if self.unconfigured_only:
            constraints.append('changes only while the node is unconfigured')
        text = self.description + (f' Unit: {self.unit}.' if self.unit else '')
        descriptor = ParameterDescriptor(
            name=self.name, type=_TYPES[type(self.default)], description=text,
            additional_constraints='; '.join(constraints),
            read_only=self.read_only or read_only)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(
                    from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                descriptor.floating_point_range = [FloatingPointRange(
                    from_value=float(self.low), to_value=float(self.high), step=0.0)]
        return descriptor

    def problem(self, value: Value) -> str:
        """Say what is wrong with a value of the right type; empty when nothing is."""
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}"
        return ''


NODE_PARAMETERS = (
    ParameterSpec('model', 'tabletop', 'Model: a known name, a checkpoint folder or owner/name '
                  'on the model hub.', unconfigured_only=True),
    ParameterSpec('device', 'auto', 'Where the model runs.',
                  choices=('auto', 'rocm', 'cuda', 'cpu'), unconfigured_only=True),
    ParameterSpec('dtype', 'auto', 'Number type of the weights.',
                  choices=('auto', 'bfloat16', 'float16', 'float32', 'int8'),
                  unconfigured_only=True),
    ParameterSpec('attention', 'auto', "How attention is computed; auto is torch's choice, flash "
                  'and efficient count where they can be had.', choices=ATTENTIONS,
                  unconfigured_only=True),
    ParameterSpec('compile', 'none', "Compile the image encoder, in torch.compile's mode; the "
                  'last two record graphs on a GPU.', choices=COMPILE_MODES,
                  unconfigured_only=True),
    ParameterSpec('tunable_op', 'none', 'ROCm: use the fastest matrix products found so far; tune '
                  'looks for those of new shapes too.', choices=TUNABLE_OPS,
                  unconfigured_only=True),
    ParameterSpec('miopen_find_mode', 'auto', 'ROCm: how MIOpen looks for convolutions; auto is '
                  'its own default.', choices=FIND_MODES, read_only=True),
    ParameterSpec('cache_folder', '', "Folder of the CPU's kernels and of what compile, "
                  'tunable_op and MIOpen have found; when empty, caption_ros/kernels in '
                  '$XDG_CACHE_HOME or ~/.cache.', read_only=True),
    ParameterSpec('filter', '', 'Filter for the captions: blip-itm, a checkpoint folder or '
                  'owner/name on the model hub; none when empty.', unconfigured_only=True),
    ParameterSpec('cameras', [''], 'Names of the cameras; the topics of each are in the namespace '
                  'of its name, and an empty name has none.', read_only=True),
    ParameterSpec('focus', 'auto', 'How the model looks at a region; auto takes what suits the '
                  'model.', choices=FOCUS_MODES),
    ParameterSpec('describe', 'auto', 'What to caption; auto is the regions when masks come, '
                  'else the scene.', choices=DESCRIBE_MODES),
    ParameterSpec('max_regions', 16, 'Regions of a frame at most; the largest stay.',
                  low=1, high=256),
    ParameterSpec('min_region_area_px', 64, 'Smaller regions are left out.', unit='px',
                  low=1, high=100_000_000),
    ParameterSpec('max_new_tokens', 48, 'Tokens of a caption at most.', low=1, high=512),
    ParameterSpec('num_beams', 1, 'Beams of the search; 1 is greedy.', low=1, high=16),
    ParameterSpec('recall', True, 'Greedy search of GPT-2, BERT and BLIP decoders: try first what '
                  'was said of what looked alike; below float32 a word within rounding of the '
                  'likeliest may stay.'),
    ParameterSpec('prompt', '', 'For models that take text: the beginning of the caption, or '
                  'the question.'),
    ParameterSpec('candidates', 1, 'With a filter: captions sampled for each region, the best is '
                  'kept; 1 samples none.', low=1, high=16),
    ParameterSpec('filter_threshold', 0.5, 'With a filter: least match of a caption; others are '
                  'held back.', low=0.0, high=1.0),
    ParameterSpec('max_rate_hz', 0.0, 'Frames captioned per second at most; 0 is no limit.',
                  unit='Hz', low=0.0, high=1000.0),
    ParameterSpec('skip_static', False, 'Skip frames that show nothing new.'),
    ParameterSpec('skip_static_max_silence_s', 10.0, 'With skip_static: caption a frame after '
                  'that long all the same.', unit='s', low=0.1, high=86400.0),
    ParameterSpec('image_transport', 'raw', 'raw subscribes to image, compressed to '
                  'image/compressed.', choices=('raw', 'compressed'), unconfigured_only=True),
    ParameterSpec('mask_slop_s', 0.01, 'Largest difference of stamps between an image and its '
                  'mask.', unit='s', low=0.0, high=10.0),
    ParameterSpec('mask_timeout_s', 2.0, 'How long an image waits for its mask.', unit='s',
                  low=0.01, high=60.0),
    ParameterSpec('stale_after_s', 5.0, 'Time without an image after which diagnostics call the '
                  'input stale.', unit='s', low=0.1, high=3600.0),
    ParameterSpec('accept_zero_stamp', False, 'Caption images whose stamp is 0 instead of '
                  'dropping them.'),
    ParameterSpec('narration_min_gap_s', 2.0, 'Least time between two narrations.', unit='s',
                  low=0.0, high=3600.0),
    ParameterSpec('narration_max_silence_s', 0.0, 'Narrate what is there once more after that '
                  'long without a change; 0 never does.', unit='s', low=0.0, high=86400.0),
    ParameterSpec('people', 'none', 'Whom of /humans (REP-155) to take for regions, with '
                  'hri_msgs.', choices=PEOPLE, unconfigured_only=True),
    ParameterSpec('autostart', True, 'Configure and activate by itself at start-up.',
                  read_only=True),
)
_BY_NAME = {spec.name: spec for spec in NODE_PARAMETERS}
_OPTION_NAMES = tuple(CaptionOptions.__dataclass_fields__)
_ACCELERATION_NAMES = tuple(Acceleration.__dataclass_fields__)


@dataclass(frozen=True)
class NodeParameters:
    """The parameters of caption_node, in the units of ``NODE_PARAMETERS``."""

    model: str
    device: str
    dtype: str
    filter: str
    cameras: tuple[str, ...]
    max_rate_hz: float
    skip_static: bool
    skip_static_max_silence_s: float
    image_transport: str
    mask_slop_s: float
    mask_timeout_s: float
    stale_after_s: float
    accept_zero_stamp: bool
    narration_min_gap_s: float
    narration_max_silence_s: float
    people: str
    autostart: bool
    options: CaptionOptions
    acceleration: Acceleration

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> NodeParameters:
        """Build from values by name.

        Raises:
            OptionError: If a caption option is out of range or two do not go together.
        """
        if values['candidates'] > 1 and not values['filter']:
            raise OptionError(f"candidates is {values['candidates']} and there is no filter to "
                              'choose among them; set filter or leave candidates at 1')
        options = {name: value for name, value in values.items() if name in _OPTION_NAMES}
        acceleration = {name: values[name] for name in _ACCELERATION_NAMES}
        rest = {name: value for name, value in values.items()
                if name not in _OPTION_NAMES and name not in _ACCELERATION_NAMES}
        rest['cameras'] = _camera_names(values['cameras'])
        if values['people'] != 'none' and len(rest['cameras']) > 1:
            raise OptionError(f"people is {values['people']} and cameras are "
                              f'{len(rest["cameras"])}: /humans does not say in whose image they '
                              'are; wanted one camera, or people none')
        return cls(options=CaptionOptions(**options), acceleration=Acceleration(**acceleration),
                   **rest)


def _camera_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of cameras; no name at all is one camera without a name.

    Raises:
        OptionError: If a name cannot be a namespace, comes twice, or there are too many.
    """
    bad = [name for name in names if name and not _CAMERA.fullmatch(name)]
    if bad:
        raise OptionError(f'cameras holds {bad[0]!r}, wanted names such as front or head/left')
    if len(set(names)) < len(names):
        raise OptionError(f'cameras holds a name twice: {", ".join(names)}')
    if len(names) > _MOST_CAMERAS:
        raise OptionError(f'cameras holds {len(names)} names, wanted at most {_MOST_CAMERAS}')
    return tuple(names) or ('',)


def declare(node: Node, specs: Sequence[ParameterSpec], read_only: bool = False,
            ) -> dict[str, str]:
    """Declare parameters; a start-up value that is not allowed leaves the default.

    Returns:
        One sentence for each refused start-up value, by parameter name.
    """
    refused = {}
    for spec in specs:
        descriptor = spec.descriptor(read_only)
        try:
            node.declare_parameter(spec.name, spec.default, descriptor)
            problem = spec.problem(node.get_parameter(spec.name).value)
            if problem:
                refused[spec.name] = problem
                continue
        except InvalidParameterTypeException as error:
            node.declare_parameter(spec.name, spec.default, descriptor, ignore_override=True)
            refused[spec.name] = (f'{spec.name} must be {_KINDS[type(spec.default)]} such as '
                                  f'{str(spec.default).lower()!r}: '
                                  + str(error).rsplit(': ', 1)[0])
        except InvalidParameterValueException as error:
            node.declare_parameter(spec.name, spec.default, descriptor, ignore_override=True)
            # rclpy gives the value only inside its text.
            refused[spec.name] = (f'{spec.name} must be in {spec.low}..{spec.high}: '
                                  + str(error).split('Reason: ')[-1].rsplit(': ', 1)[0])
    return refused


def values_of(node: Node, specs: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Return the values of declared parameters by name."""
    return {spec.name: node.get_parameter(spec.name).value for spec in specs}


def unconfigured_only(name: str) -> bool:
    """Tell whether a parameter of caption_node changes only while it is unconfigured."""
    return name in _BY_NAME and _BY_NAME[name].unconfigured_only


def problems(values: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with values of caption_node's parameters, one sentence each."""
    found = (spec.problem(values[spec.name]) for spec in NODE_PARAMETERS if spec.name in values)
    return [problem for problem in found if problem]
