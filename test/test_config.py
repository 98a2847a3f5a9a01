# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The layouts for RViz and Foxglove show topics that the nodes have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def documented():
    """Return the topics and services of docs/nodes.md, which tests hold equal to the nodes."""
    rows = re.findall(r'^\| `([^`]+)` \| (?:in|out) \| (\S+) \|', (
        ROOT / 'docs/nodes.md').read_text(), re.M)
    return {name.lstrip('/'): kind for name, kind in rows}


def test_rviz_shows_topics_of_the_nodes():
    layout = yaml.safe_load((ROOT / 'config/caption_ros.rviz').read_text())
    displays = layout['Visualization Manager']['Displays']
    assert len({display['Name'] for display in displays}) == len(displays) >= 3
    for display in displays:
        assert display['Class'] == 'rviz_default_plugins/Image'
        topic = display['Topic']['Value']
        assert documented()[topic.lstrip('/')] == 'sensor_msgs/Image', topic
        # Works with both kinds of publisher; a reliable display would stay black beside a camera.
        assert display['Topic']['Reliability Policy'] == 'Best Effort'


def panels(layout):
    if isinstance(layout, str):
        return {layout}
    return panels(layout['first']) | panels(layout['second'])


def test_foxglove_shows_topics_of_the_nodes():
    layout = json.loads((ROOT / 'config/foxglove.json').read_text())
    topics = documented()
    by_id = layout['configById']
    assert panels(layout['layout']) == set(by_id)
    assert topics[by_id['Image!annotated']['imageMode']['imageTopic'].lstrip('/')] == (
        'sensor_msgs/Image')
    for name, panel in by_id.items():
        path = panel.get('topicPath') or panel.get('topicName') or panel.get('topicToRender')
        if path:
            assert path.split('.')[0].lstrip('/') in topics, name
    question = by_id['Publish!prompt']
    assert question['datatype'].replace('/msg/', '/') == topics['prompt']
    assert set(json.loads(question['value'])) == {'data'}
    assert by_id['CallService!describe']['serviceName'] == '/caption_node/describe'
