# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/nodes.md lists the topics and services that the nodes have, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nodebench import wait_for
from rclpy.parameter import Parameter

from caption_ros.ros.scene_camera import SceneCamera
from caption_ros.ros.speak import SpeakNode

ROOT = Path(__file__).resolve().parents[2]
# Every node has them.
OF_RCLPY = ('/rosout', '/parameter_events', '/clock')
NAMES_OF_RCLPY = ('parameter', 'type_description', 'state', 'transition')


def documented(node_name):
    """Return {(direction, topic, type)} and {(service, type)} of a node's section."""
    section = (ROOT / 'docs/nodes.md').read_text().split(f'\n## {node_name}\n')[1]
    section = section.split('\n## ')[0]
    topics = set(re.findall(r'^\| `([^`]+)` \| (in|out) \| (\S+) \|', section, re.M))
    return topics, set(re.findall(r'^\| `(~/[^`]+)` \| (\S+) \|', section, re.M))


def shown(types):
    kind, = types
    return kind.replace('/msg/', '/').replace('/srv/', '/')


def interface(node):
    """Return the same of a running node."""
    name, namespace = node.get_name(), node.get_namespace()
    topics = set()
    for direction, listed in (
            ('in', node.get_subscriber_names_and_types_by_node(name, namespace)),
            ('out', node.get_publisher_names_and_types_by_node(name, namespace))):
        for topic, types in listed:
            if topic not in OF_RCLPY and 'transition_event' not in topic:
                plain = topic if topic.startswith(('/humans', '/diagnostics')) else topic[1:]
                topics.add((plain.replace('/ann/', '/<id>/'), direction, shown(types)))
    services = {(service.replace(f'/{name}/', '~/'), shown(types)) for service, types in
                node.get_service_names_and_types_by_node(name, namespace)
                if not any(word in service for word in NAMES_OF_RCLPY)}
    return topics, services


def test_caption_node_has_what_is_documented(make_bench, more_msgs):
    from hri_msgs.msg import IdsList
    bench = make_bench(people='bodies').start()
    tracked = bench.client.create_publisher(IdsList, '/humans/bodies/tracked', 1)
    wait_for(lambda: tracked.get_subscription_count() > 0)
    tracked.publish(IdsList(ids=['ann']))
    wait_for(lambda: any('<id>' in name for name, _, _ in interface(bench.node)[0]))
    raw = interface(bench.node)
    assert bench.change('deactivate') and bench.change('cleanup')
    assert bench.set(image_transport='compressed') == (True, '')
    bench.start()
    topics = raw[0] | interface(bench.node)[0]
    assert (topics, raw[1]) == documented('caption_node')


@pytest.mark.parametrize('make', [
    lambda: SceneCamera(parameter_overrides=[
        Parameter('width', value=64), Parameter('height', value=48),
        Parameter('image_transport', value='both')]),
    lambda: SpeakNode(parameter_overrides=[Parameter('command', value='true')])],
    ids=['scene_camera', 'speak'])
def test_other_nodes_have_what_is_documented(ros, make):
    node = make()
    try:
        assert interface(node) == documented(node.get_name())
    finally:
        node.destroy_node()
