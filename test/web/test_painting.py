# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a browser sends becomes regions, and what it should not send a sentence."""

import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import CaptionError, ImageFormatError, RegionError
from caption_ros.web.painting import box_of, painted_labels, read_upload, to_paint_on
from caption_ros.web.studio import Studio, Wish


def _layer(*strokes, size=(48, 64)):
    layer = np.zeros((*size, 4), np.uint8)
    for rows, columns, colour in strokes:
        layer[rows[0]:rows[1], columns[0]:columns[1]] = colour
    return layer


def test_each_colour_is_a_region_scaled_to_the_picture():
    red, green = (250, 60, 50, 255), (52, 199, 89, 200)
    labels = painted_labels([_layer(((0, 10), (0, 10), red), ((20, 30), (20, 30), green))],
                            (96, 128))
    assert labels.shape == (96, 128)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[:20, :20] == 1).all() and (labels[40:60, 40:60] == 2).all()
    assert (labels > 0).sum() == 800


def test_nothing_painted_is_no_label_image():
    assert painted_labels([], (48, 64)) is None
    assert painted_labels([_layer(), _layer(((0, 9), (0, 9), (255, 0, 0, 60)))], (48, 64)) is None


def test_paint_beside_the_picture_and_what_is_no_paint_are_refused():
    with pytest.raises(RegionError, match='beside the picture'):
        painted_labels([_layer(((47, 48), (63, 64), (255, 0, 0, 255)))], (4, 4))
    with pytest.raises(RegionError, match=r'has the shape \(4, 4\)'):
        painted_labels([np.zeros((4, 4), np.uint8)], (4, 4))


@pytest.mark.parametrize('text, box', [
    ('', None), (' ', None), ('1 2 3 4', (1, 2, 3, 4)), ('1.4, 2,3,4', (1, 2, 3, 4)),
    ('-5, -5, 1e20, 1e20', (0, 0, 64, 48))])
def test_a_box_is_cut_to_the_picture(text, box):
    assert box_of(text, (48, 64)) == box


@pytest.mark.parametrize('text', ['1 2 3', '1 2 3 4 5', 'a b c d', 'nan 1 2 3', '9 9 3 3',
                                  '64 0 99 10', '1 2 1 9'])
def test_what_is_no_box_of_the_picture_is_refused(text):
    with pytest.raises(RegionError, match='wanted x0'):
        box_of(text, (48, 64))


def test_a_large_picture_is_made_smaller_to_paint_on():
    assert to_paint_on(np.zeros((1080, 1920, 3), np.uint8)).shape == (540, 960, 3)
    small = np.zeros((48, 64, 3), np.uint8)
    assert to_paint_on(small) is small


def test_uploads_are_looked_at_before_they_are_decoded(tmp_path, monkeypatch):
    Image.new('1', (10_000, 10_000)).save(tmp_path / 'huge.png')
    (tmp_path / 'no.jpg').write_bytes(b'\xff\xd8 but no more')
    Image.new('RGB', (8, 6), 'red').save(tmp_path / 'red.png')
    assert (read_upload(tmp_path / 'red.png') == (255, 0, 0)).all()
    Image.new('RGB', (8, 6)).save(tmp_path / 'program.eps')  # Pillow would have it run
    header = (tmp_path / 'huge.png').read_bytes()[:33]
    for name, edges in (('bomb', (2**31 - 1, 2**31 - 1)), ('wide', (20_000, 1))):
        size = struct.pack('>II', *edges) + header[24:29]
        check = struct.pack('>I', zlib.crc32(b'IHDR' + size))
        (tmp_path / f'{name}.png').write_bytes(
            header[:16] + size + check + b'\0\0\0\0IDAT' + struct.pack('>I', zlib.crc32(b'IDAT')))
    Image.init()  # its plugins draw pictures of their own
    monkeypatch.setattr(Image.Image, 'load', lambda self: pytest.fail('decoded'))
    with pytest.raises(ImageFormatError, match='huge.png has more than 40 million pixels'):
        read_upload(tmp_path / 'huge.png')
    for name, text in (('no.jpg', 'is no picture'), ('program.eps', 'is no picture'),
                       ('bomb.png', 'has more than 40 million'),
                       ('wide.png', '16384 pixels a side.*make it smaller')):
        with pytest.raises(ImageFormatError, match=f'^{name}:? .*{text}'):
            read_upload(tmp_path / name)


class Teller:
    name, family, focus_modes, device, dtype = 'teller', 'fake', ('crop',), 'cpu', 'float32'

    def __init__(self, name):
        self.name, self.closed = name, False

    def caption(self, rgb, regions, options):
        self.thread = threading.get_ident()
        return [Caption(self.name, 0.5, 'none', region) for region in regions]

    def close(self):
        self.closed = True


def test_a_model_is_loaded_and_asked_on_one_thread_whoever_asks():
    loaded_on, made = [], []

    def load(name):
        loaded_on.append(threading.get_ident())
        made.append(Teller(name))
        return made[-1]
    studio = Studio(['one', 'two'], load)
    studio.start()
    for name in ('one', 'two'):
        asker = threading.Thread(target=studio.ask, args=(
            np.zeros((48, 64, 3), np.uint8), None, Wish(name, CaptionOptions())))
        asker.start()
        asker.join()
    studio.close()
    assert len({*loaded_on, *(teller.thread for teller in made)}) == 1
    assert loaded_on[0] != threading.get_ident()


def test_a_model_that_cannot_be_loaded_leaves_the_one_that_is_there():
    made = []

    def load(name):
        if name == 'broken':
            raise CaptionError('it is broken')
        made.append(Teller(name))
        return made[-1]
    studio, rgb = Studio(['one', 'two', 'broken'], load), np.zeros((48, 64, 3), np.uint8)
    studio.start()
    with pytest.raises(CaptionError):
        studio.ask(rgb, None, Wish('broken', CaptionOptions()))
    assert studio.ask(rgb, None, Wish('one', CaptionOptions())).captions[0].text == 'one'
    assert len(made) == 1 and not made[0].closed
    answer = studio.ask(rgb, None, Wish('two', CaptionOptions()))
    assert answer.captions[0].text == 'two' and made[0].closed and answer.latency_s > 0
    studio.close()
    assert made[1].closed


def test_a_picture_that_is_shown_twice_is_two_files():
    """Otherwise the second is written over the first while a browser may be reading it."""
    gr = pytest.importorskip('gradio')
    from caption_ros.web.page import Shown, _canvas
    rgb = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
    editor = gr.ImageEditor(format='png')
    paths = {editor.postprocess(_canvas(Shown(rgb))).background.path for _ in range(2)}
    assert len(paths) == 2
    for path in paths:
        assert np.array_equal(np.asarray(Image.open(path)), rgb)
