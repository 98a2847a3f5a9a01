# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Declared parameters, docs/nodes.md and config/*.yaml say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from rclpy.parameter import Parameter

from caption_ros.captioner import CaptionOptions
from caption_ros.ros.caption_node import CaptionNode
from caption_ros.ros.parameters import NODE_PARAMETERS
from caption_ros.ros.scene_camera import CAMERA_PARAMETERS, SceneCamera
from caption_ros.ros.speak import SPEAK_PARAMETERS, SpeakNode

ROOT = Path(__file__).resolve().parents[2]
OF_RCLPY = ('use_sim_time', 'start_type_description_service')


@pytest.fixture(params=['caption_node', 'scene_camera', 'speak'])
def node(request, ros):
    if request.param == 'caption_node':
        made = CaptionNode(parameter_overrides=[Parameter('autostart', value=False)])
    elif request.param == 'speak':
        made = SpeakNode(parameter_overrides=[Parameter('command', value='true')])
    else:
        made = SceneCamera(parameter_overrides=[Parameter('width', value=64),
                                                Parameter('height', value=48)])
    yield made
    made.destroy_node()


def declared(node):
    """Return default and range of each parameter of the running node, by name, as text."""
    specs = {spec.name: spec for spec in (*NODE_PARAMETERS, *CAMERA_PARAMETERS, *SPEAK_PARAMETERS)
             if node.has_parameter(spec.name)}
    names = [name for name in node._parameters if name not in OF_RCLPY]
    out = {}
    for descriptor in node.describe_parameters(names):
        assert descriptor.description, f'{descriptor.name} has no description'
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        choices = re.search('one of ([^;]*)', descriptor.additional_constraints)
        limits = f'{ranges[0].from_value}..{ranges[0].to_value}' if ranges else '-'
        is_number = descriptor.type in (2, 3)
        assert bool(ranges) == is_number, f'{descriptor.name}: a number needs a range'
        out[descriptor.name] = (specs[descriptor.name].default,
                                choices[1] if choices else limits, descriptor.description)
    return out


def documented(node_name):
    text = (ROOT / 'docs/nodes.md').read_text()
    section = text.split(f'### Parameters of {node_name}\n')[1].split('\n#')[0]
    rows = [[cell.strip() for cell in line.strip('|').split(' | ')]
            for line in section.splitlines() if line.startswith('| `')]
    return {row[0].strip('| `'): row[1:] for row in rows}


def test_documentation_holds_what_is_declared(node):
    rows = documented(node.get_name())
    facts = declared(node)
    assert set(rows) == set(facts)
    for name, (default, limits, description) in facts.items():
        shown, unit, shown_limits, what = rows[name][:4]
        assert yaml.safe_load(shown.strip('`')) == default, name
        assert shown_limits == limits, name
        expected = description if unit == '-' else f'{what} Unit: {unit}.'
        assert what in description and expected == description, name


def test_configuration_file_holds_the_declared_defaults(node):
    if node.get_name() == 'speak':
        return  # one parameter needs no file
    loaded = yaml.safe_load((ROOT / f'config/{node.get_name()}.yaml').read_text())
    values = loaded['/**']['ros__parameters']
    facts = declared(node)
    assert values == {name: default for name, (default, _, _) in facts.items()}
    assert {name: type(value) for name, value in values.items()} == {
        name: type(default) for name, (default, _, _) in facts.items()}


@pytest.mark.parametrize('name', ['caption_node', 'scene_camera'])
def test_configuration_file_is_accepted_by_the_node(ros, name):
    made = (CaptionNode if name == 'caption_node' else SceneCamera)(
        cli_args=['--ros-args', '--params-file', str(ROOT / f'config/{name}.yaml'),
                  '-p', 'autostart:=false', '-p', 'mask_delay_s:=0.07'])
    try:
        if name == 'scene_camera':
            assert made.get_parameter('mask_delay_s').value == 0.07
        else:
            assert made.get_parameter('autostart').value is False
            assert made.settings.refused == ''
    finally:
        made.destroy_node()


def test_options_and_parameters_have_the_same_defaults_and_ranges():
    specs = {spec.name: spec for spec in NODE_PARAMETERS}
    options = CaptionOptions()
    assert specs['recall'].default and not options.recall  # a camera sees the same, a call may not
    for name in set(CaptionOptions.__dataclass_fields__) - {'sample', 'recall'}:
        spec = specs[name]  # and candidates asks for sampling
        assert spec.default == getattr(options, name)
        if spec.low is not None:
            for allowed in (spec.low, spec.high):
                CaptionOptions(**{name: allowed})
            for refused in (spec.low - 1, spec.high + 1):
                with pytest.raises(ValueError, match=name):
                    CaptionOptions(**{name: refused})


def test_what_is_fixed_at_the_start_is_read_only(ros):
    node = CaptionNode(parameter_overrides=[Parameter('autostart', value=False)])
    try:
        descriptors = node.describe_parameters([spec.name for spec in NODE_PARAMETERS])
        assert [d.name for d in descriptors if d.read_only] == [
            'miopen_find_mode', 'cache_folder', 'cameras', 'autostart']
    finally:
        node.destroy_node()
