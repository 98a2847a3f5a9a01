# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: painting, boxes, a camera, and what people do wrong."""

import io
import re
import socket
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from PIL import Image
from webbench import HAS_ROS, TOPIC, answers

from caption_ros.scenes import TabletopStream

THREE = 11  # seed of a scene with three objects
ICON_PX = 100  # more than the icon has that is as red as the first paint


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


def wait_for(condition, what, timeout_s=40.0):
    end_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end_s, f'not within {timeout_s} s: {what()}'
        time.sleep(0.05)
    return value


def said(page):
    return page.input_value('#said textarea')


def wait_said(page, caption):
    text = f'{caption} (score '  # the words of a thing are in those of the scene, too
    wait_for(lambda: said(page).startswith(text), lambda: f'{text!r}, but {said(page)!r}')


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
    wait_painting(page)


def canvas_of(page):
    shot = page.locator('#paint canvas').first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert('RGB')).astype(int)


def red_area(page):
    """Count the pixels of the first paint; of all else only an icon has any."""
    return int((np.abs(canvas_of(page) - (255, 59, 48)).max(2) < 12).sum())


def wait_painting(page):
    """Wait until the editor has a picture."""
    def has_picture():
        told = page.inner_text('#paint')
        is_ready = re.search(r'\d+%', told) and not re.search('queue|processing', told)
        return is_ready and canvas_of(page).std() > 20
    wait_for(has_picture, lambda: 'a picture to paint on')
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


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def box_field(page):
    return page.input_value('#box textarea, #box input')


def test_a_box_that_is_dragged_is_said_and_goes_with_its_picture(opened, scene, picture):
    page = opened()
    shown(page, picture, scene.scene_caption)
    for label, caption in scene.region_captions.items():
        frame = page.query_selector('#result img').bounding_box()
        x0, y0, x1, y1 = (edge * frame['width'] / 640 for edge in box_of(scene.labels == label))
        page.mouse.move(frame['x'] + x1, frame['y'] + y0)  # from any corner
        page.mouse.down()
        page.mouse.move(frame['x'] + x0, frame['y'] + y1)
        drawn = page.query_selector('#drag-box').bounding_box()
        assert abs(drawn['width'] - (x1 - x0)) < 3 and abs(drawn['height'] - (y1 - y0)) < 3
        page.mouse.up()
        wait_said(page, caption)
        assert said(page).count('score') == 1 and page.query_selector('#drag-box') is None
        written = [int(edge) for edge in box_field(page).split(',')]
        assert np.abs(np.subtract(written, box_of(scene.labels == label))).max() <= 2
    page.click('#upload button[aria-label="Clear"]')
    shown(page, picture, scene.scene_caption)
    assert box_field(page) == ''


def test_what_is_wrong_with_a_box_is_told(opened, scene, picture):
    page = opened()
    page.fill('#box textarea, #box input', '1 2 3 4')
    page.keyboard.press('Enter')
    wait_message(page, 'there is no picture yet; open one')
    shown(page, picture, scene.scene_caption)
    for text, message in (('10, 20, 30', 'is not four numbers'), ('a b c d', 'is not four'),
                          ('700, 10, 900, 90', 'holds nothing of the picture, which is 640x480'),
                          ('nan 1 2 3', 'wanted x0 < x1')):
        page.fill('#box textarea, #box input', text)
        page.keyboard.press('Enter')
        wait_message(page, message)
    label, caption = next(iter(scene.region_captions.items()))
    page.fill('#box textarea, #box input', ' '.join(map(str, box_of(scene.labels == label))))
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
    for path, message in ((huge, 'huge.png has more than 40 million pixels'),
                          (text, 'text.png is no picture')):
        page.click('#upload button[aria-label="Clear"]')
        upload(page, path)
        wait_message(page, message)
    assert caption in said(page)
    # The paint is still there to be taken away, and the picture stays when all paint goes.
    # The editor fits the picture in by steps, some without any paint.
    painted = wait_for(lambda: (area := red_area(page)) > ICON_PX and area,
                       lambda: f'{red_area(page)} with paint')
    assert not page.is_visible('#paint button[aria-label="Clear canvas"]')
    page.click('#anew')
    wait_said(page, scene.scene_caption)
    wait_for(lambda: red_area(page) < painted / 3, lambda: f'{red_area(page)} without paint')
    wait_painting(page)


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
    for path in ('config', 'gradio_api/info', 'gradio_api/queue/data?session_hash=x'):
        with pytest.raises(urllib.error.HTTPError, match='401'):
            urllib.request.urlopen(page.url + path, timeout=5)


def test_a_browser_that_leaves_while_it_uploads_costs_nobody(servers):
    """What the page prints is looked at when it ends: no traceback."""
    page = servers[0]
    with socket.create_connection(('127.0.0.1', page.port)) as browser:
        browser.sendall(b'POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n'
                        b'Content-Type: multipart/form-data; boundary=x\r\n'
                        b'Content-Length: 100000\r\n\r\n--x\r\n'
                        b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
                        + bytes(9000))
        time.sleep(0.5)
    time.sleep(0.5)
    assert answers(page.url)


@pytest.mark.skipif(not HAS_ROS, reason='rclpy is not installed')
def test_the_camera_moves_and_what_is_painted_on_its_frame_is_published(opened, scene):
    import rclpy
    from sensor_msgs.msg import Image as ImageMsg
    from sensor_msgs.msg import RegionOfInterest
    from std_msgs.msg import Header

    from caption_ros.ros.messages import msg_from_array
    page = opened()
    wait_for(lambda: page.is_visible('#camera'), lambda: 'a word about the camera')
    assert page.input_value('#camera textarea, #camera input') == (
        f'no frame came on {TOPIC} yet; is the camera on?')
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
        assert not page.is_visible('#camera')
        last = stamp[0]
        page.wait_for_timeout(300)
        page.click('#take')
        wait_painting(page)
        frame = stream.frame(last % 9 * 10)
        label, caption = next(iter(frame.region_captions.items()))
        paint(page, frame.labels == label)
        wait_said(page, caption)
        asked = []
        page.on('request', lambda request: asked.append(request.url))
        page.wait_for_timeout(1200)  # four ticks, while the live picture rests
        assert sum('queue/join' in url for url in asked) <= 1
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
