# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: painting, boxes, a camera, and what people do wrong."""

import re
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from webbench import HAS_ROS, TOPIC

from caption_ros.scenes import TabletopStream

THREE = 11  # seed of a scene with three objects


@pytest.fixture(scope='module')
def scene():
    frame = TabletopStream(THREE).frame(0)
    assert len(frame.region_captions) == 3
    return frame


@pytest.fixture
def picture(scene, tmp_path):
    path = tmp_path / 'table.png'
    Image.fromarray(scene.rgb).save(path)
    return path


def wait_for(condition, what, timeout_s=20.0):
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end_s, f'not within {timeout_s} s: {what()}'
        time.sleep(0.05)
    return value


def said(page):
    return page.input_value('#said textarea')


def wait_said(page, text):
    wait_for(lambda: text in said(page), lambda: f'{text!r}, but {said(page)!r}')


def wait_message(page, text):
    found = page.locator('#message textarea')
    wait_for(lambda: found.count() and text in found.input_value(),
             lambda: f'{text!r}, but {found.input_value() if found.count() else None!r}')


def upload(page, path):
    page.set_input_files('#upload input[type=file]', path)


def shown(page, path, caption):
    """Upload a picture and wait until it can be painted on."""
    upload(page, path)
    wait_said(page, caption)
    wait_for(lambda: re.search(r'\d+%', page.inner_text('#paint')), lambda: 'a canvas')
    page.wait_for_timeout(700)  # the editor fits the picture in by steps


def paint(page, mask):
    """Paint over the inside of a mask, (480, 640) bool, with one stroke."""
    inner = cv2.erode(np.pad(mask.astype(np.uint8), 1), np.ones((25, 25), np.uint8))[1:-1, 1:-1]
    inner = inner if inner.any() else mask
    zoom = int(re.search(r'(\d+)%', page.inner_text('#paint'))[1]) / 100
    canvas = page.query_selector('#paint canvas').bounding_box()
    middle = (canvas['x'] + canvas['width'] / 2, canvas['y'] + canvas['height'] / 2)
    path = []
    for row in range(0, 480, 30):
        columns = np.flatnonzero(inner[row])
        if columns.size:
            path += [(x, row) for x in (columns[0], columns[-1])[::1 if len(path) % 4 else -1]]
    points = [(middle[0] + (x - 320) * zoom, middle[1] + (y - 240) * zoom) for x, y in path]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point)
    page.mouse.up()


def test_each_thing_that_is_painted_is_said(opened, scene, picture):
    page = opened()
    shown(page, picture, scene.scene_caption)
    assert re.search(r'\(score 0\.\d+|1\.00\)', said(page)) and re.search(r'\d+ ms', said(page))
    for label, caption in scene.region_captions.items():
        paint(page, scene.labels == label)
        wait_said(page, caption)
        assert said(page).count('score') == 1
        page.click('#paint button[aria-label="Undo"]')
        wait_message(page, 'Nothing is painted')
        wait_said(page, scene.scene_caption)


def test_a_box_is_said_and_what_is_wrong_with_one_is_told(opened, scene, picture):
    page = opened()
    shown(page, picture, scene.scene_caption)
    for text, message in (('10, 20, 30', 'is not four numbers'), ('a b c d', 'is not four'),
                          ('700, 10, 900, 90', 'holds nothing of the picture, which is 640x480'),
                          ('nan 1 2 3', 'wanted x0 < x1')):
        page.fill('#box textarea, #box input', text)
        page.keyboard.press('Enter')
        wait_message(page, message)
    label, caption = next(iter(scene.region_captions.items()))
    rows, columns = np.nonzero(scene.labels == label)
    page.fill('#box textarea, #box input',
              f'{columns.min()}, {rows.min()}, {columns.max() + 1}, {rows.max() + 1}')
    page.keyboard.press('Enter')
    wait_said(page, caption)


def test_bad_uploads_are_told_and_nothing_is_lost(opened, scene, picture, tmp_path):
    page = opened()
    shown(page, picture, scene.scene_caption)
    label, caption = next(iter(scene.region_captions.items()))
    paint(page, scene.labels == label)
    wait_said(page, caption)
    huge, text = tmp_path / 'huge.png', tmp_path / 'text.png'
    Image.new('1', (10_000, 10_000)).save(huge)
    text.write_text('no picture at all')
    for path, message in ((huge, 'huge.png has 100 million pixels, wanted at most 40'),
                          (text, 'text.png is no picture')):
        page.click('#upload button[aria-label="Clear"]')
        upload(page, path)
        wait_message(page, message)
    assert caption in said(page)
    page.click('#paint button[aria-label="Undo"]')  # the paint is still there to be taken away
    wait_said(page, scene.scene_caption)


def test_a_prompt_is_told_to_be_too_long_or_of_no_use(opened, scene, picture):
    page = opened()
    shown(page, picture, scene.scene_caption)
    for prompt, message in (('x' * 10_000, 'at most 2000 letters, got 10000'),
                            ('what is it?', 'takes no text; leave prompt empty')):
        page.fill('#prompt textarea, #prompt input', prompt)
        page.keyboard.press('Tab')
        wait_message(page, message)
    page.fill('#prompt textarea, #prompt input', '')
    page.keyboard.press('Tab')
    wait_message(page, 'Nothing is painted')
    assert scene.scene_caption in said(page)


def test_it_fits_a_phone(opened, scene, picture):
    page = opened(width=390)
    shown(page, picture, scene.scene_caption)
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    for part in ('#upload', '#paint', '#said', '#model', '#beams'):
        box = page.query_selector(part).bounding_box()
        assert box['x'] >= 0 and box['x'] + box['width'] <= 390


def test_a_wrong_password_lets_nobody_in(opened):
    page = opened(server=1)
    assert page.query_selector('#upload') is None
    for password, is_right in (('a long guess', False), ('a long secret', True)):
        page.fill('input[type=text], label:has-text("username") textarea', 'robot')
        page.fill('input[type=password]', password)
        page.click('button:has-text("Login")')
        page.wait_for_selector('#upload' if is_right else 'text=Incorrect')
    response = page.request.get(page.url + 'config', headers={'cookie': ''})
    assert response.status in (200, 401)


@pytest.mark.skipif(not HAS_ROS, reason='rclpy is not installed')
def test_the_camera_moves_and_what_is_painted_on_its_frame_is_published(opened, scene):
    import rclpy
    from sensor_msgs.msg import Image as ImageMsg
    from sensor_msgs.msg import RegionOfInterest
    from std_msgs.msg import Header

    from caption_ros.ros.messages import msg_from_array
    page = opened()
    started = not rclpy.ok()
    if started:
        rclpy.init(args=[])
    node = rclpy.create_node('camera')
    images = node.create_publisher(ImageMsg, TOPIC, 5)
    masks, boxes, stamp = [], [], [0]
    node.create_subscription(ImageMsg, 'mask', masks.append, 5)
    node.create_subscription(RegionOfInterest, 'roi', boxes.append, 5)
    stream = TabletopStream(THREE)

    def film():
        stamp[0] += 1
        header = Header(frame_id='front')
        header.stamp.sec = stamp[0]
        images.publish(msg_from_array(stream.frame(stamp[0] % 9 * 10).rgb, 'rgb8', header))
        rclpy.spin_once(node, timeout_sec=0.1)
        source = page.get_attribute('#live img', 'src') if page.query_selector('#live img') else ''
        if source:
            seen.add(source)
        return len(seen) >= 4

    seen = set()
    try:
        wait_for(film, lambda: f'moving frames, {len(seen)} seen')
        wait_for(lambda: 'score' in said(page), lambda: 'a caption')
        last = stamp[0]
        page.wait_for_timeout(300)
        page.click('#take')
        wait_for(lambda: re.search(r'\d+%', page.inner_text('#paint')), lambda: 'a canvas')
        page.wait_for_timeout(700)
        frame = stream.frame(last % 9 * 10)
        label, caption = next(iter(frame.region_captions.items()))
        paint(page, frame.labels == label)
        wait_said(page, caption)
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.1) or masks, lambda: 'a mask')
        assert (masks[-1].header.stamp.sec, masks[-1].header.frame_id) == (last, 'front')
        assert (masks[-1].width, masks[-1].height, masks[-1].encoding) == (640, 480, 'mono8')
        page.fill('#box textarea, #box input', '10 20 110 70')
        page.keyboard.press('Enter')
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.1) or (boxes and boxes[-1].width),
                 lambda: 'a box')
        assert (boxes[-1].x_offset, boxes[-1].y_offset, boxes[-1].width,
                boxes[-1].height) == (10, 20, 100, 50)
    finally:
        node.destroy_node()
        if started:
            rclpy.try_shutdown()
