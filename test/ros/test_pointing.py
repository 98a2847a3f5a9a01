# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Boxes, people and names that other nodes tell, over DDS."""

from __future__ import annotations

import pytest
import rclpy
from nodebench import wait_for
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import RegionOfInterest

from caption_ros.errors import RegionError
from caption_ros.ros.pointing import Marks, Pointing, optional_msgs
from caption_ros.ros.spinning import spinning

SIZE = (48, 64)


@pytest.fixture
def told(ros):
    """Make a Pointing in a node that spins, and publishers of another node."""
    node, other = rclpy.create_node('pointed'), rclpy.create_node('people')

    class Told:
        warnings: list[str] = []
        publishers: dict = {}

        def make(self, people='none'):
            self.warnings, self.publishers = [], {}
            self.pointing = Pointing(node, str, people, lambda kind, text:
                                     self.warnings.append(text), MutuallyExclusiveCallbackGroup())
            return self

        def tell(self, topic, message, qos=10):
            if topic not in self.publishers:
                made = other.create_publisher(type(message), topic, qos)
                wait_for(lambda: made.get_subscription_count() > 0, what=f'match {topic}')
                self.publishers[topic] = made
            self.publishers[topic].publish(message)

        def marks(self, max_age_s=60.0):
            return self.pointing.marks(max_age_s)

    with spinning(node):
        yield Told()
    node.destroy_node()
    other.destroy_node()


def test_a_roi_holds_until_one_without_size(told):
    told.make()
    told.tell('roi', RegionOfInterest(x_offset=4, y_offset=5, width=10, height=20))
    wait_for(lambda: told.marks().roi)
    region, = told.marks().regions(SIZE)
    assert (region.box, region.label) == ((4, 5, 14, 25), None)
    told.tell('roi', RegionOfInterest())
    wait_for(lambda: told.marks().roi is None)
    assert not told.marks().any_region


def test_a_roi_outside_the_image_is_an_error_of_the_frame():
    with pytest.raises(RegionError, match='covers nothing'):
        Marks(RegionOfInterest(x_offset=400, width=9, height=9)).regions(SIZE)


def test_nothing_is_heard_after_closing(told):
    told.make()
    told.tell('roi', RegionOfInterest(width=10, height=20))
    wait_for(lambda: told.marks().roi)
    told.pointing.close()
    wait_for(lambda: told.publishers['roi'].get_subscription_count() == 0)


@pytest.mark.parametrize('durability', ['VOLATILE', 'TRANSIENT_LOCAL'])
def test_names_of_labels_are_heard_from_both_kinds_of_publisher(told, more_msgs, durability):
    from vision_msgs.msg import LabelInfo, VisionClass
    told.make()
    assert told.marks().names is None
    told.tell('mask_labels', LabelInfo(class_map=[VisionClass(class_id=4, class_name='mug')]),
              QoSProfile(depth=1, durability=DurabilityPolicy[durability]))
    assert wait_for(lambda: told.marks().names) == {4: 'mug'}


def face(x, **more):
    from hri_msgs.msg import NormalizedRegionOfInterest2D
    return NormalizedRegionOfInterest2D(xmin=x, ymin=0.0, xmax=x + 0.25, ymax=0.5, **more)


def test_people_are_followed_as_long_as_they_are_tracked(told, more_msgs):
    from hri_msgs.msg import IdsList
    told.make('faces')
    told.tell('/humans/faces/tracked', IdsList(ids=['ann', 'bob', 'ann']))
    told.tell('/humans/faces/ann/roi', face(0.0))
    told.tell('/humans/faces/bob/roi', face(0.5))
    wait_for(lambda: len(told.marks().people) == 2)
    ann, bob = told.marks().regions(SIZE)
    assert (ann.id, ann.box) == ('ann', (0, 0, 16, 24))
    assert (bob.id, bob.box) == ('bob', (32, 0, 48, 24))
    assert told.marks(max_age_s=0.0).people == {}
    told.tell('/humans/faces/tracked', IdsList(ids=['bob']))
    wait_for(lambda: set(told.marks().people) == {'bob'})
    wait_for(lambda: told.publishers['/humans/faces/ann/roi'].get_subscription_count() == 0)
    assert told.warnings == []


def test_ids_that_make_no_topic_and_crowds_are_told(told, more_msgs):
    from hri_msgs.msg import IdsList
    told.make('bodies')
    told.tell('/humans/bodies/tracked', IdsList(ids=['../x', '', 'a b', 'ok']))
    told.tell('/humans/bodies/ok/roi', face(0.0))
    wait_for(lambda: told.marks().people)
    assert 'of 4 bodies that are tracked 1 have an id' in told.warnings[0]
    told.tell('/humans/bodies/tracked', IdsList(ids=[f'p{i}' for i in range(500)]))
    wait_for(lambda: len(told.pointing._followed) == 32)


def test_without_the_packages_boxes_are_heard_all_the_same(told, no_more_msgs):
    assert optional_msgs('vision_msgs') is optional_msgs('hri_msgs') is None
    told.make('faces')
    told.tell('roi', RegionOfInterest(width=10, height=20))
    wait_for(lambda: told.marks().roi)
