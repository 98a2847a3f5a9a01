# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from caption_ros.errors import ImageFormatError
from caption_ros.picture import read_labels, read_picture

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True
ONE_REGION = MASK.astype(np.uint8) * 255
LABELS = np.array([[0, 1, 2], [7, 7, 255]], np.uint8)


def _save(path, pixels, mode=None, **options):
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def _layers(colour, alpha):
    pixels = np.empty((*MASK.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = np.asarray(colour)[..., None], alpha
    return pixels


@pytest.mark.parametrize('pixels', [
    pytest.param(MASK, id='one bit'),
    pytest.param(ONE_REGION, id='grey'),
    pytest.param(np.repeat(ONE_REGION[..., None], 3, 2), id='rgb'),
    pytest.param(_layers(ONE_REGION, 255), id='opaque rgba'),
    pytest.param(_layers(255, ONE_REGION), id='white cut-out'),
    pytest.param(_layers(0, ONE_REGION), id='black cut-out'),
    pytest.param(np.stack([ONE_REGION, ONE_REGION * 0, ONE_REGION * 0], 2), id='red'),
])
def test_a_mask_is_one_region_however_it_is_stored(pixels, tmp_path):
    np.testing.assert_array_equal(read_labels(_save(tmp_path / 'm.png', pixels)), ONE_REGION)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA'])
def test_label_values_stay(mode, tmp_path):
    np.testing.assert_array_equal(read_labels(_save(tmp_path / 'm.png', LABELS, mode)), LABELS)


def test_a_palette_gives_its_numbers_not_its_colours(tmp_path):
    picture = Image.fromarray(LABELS)
    picture.putpalette([value for i in range(256) for value in (255 - i, i, 9)])
    picture.save(tmp_path / 'm.png')
    np.testing.assert_array_equal(read_labels(tmp_path / 'm.png'), LABELS)


def test_labels_of_16_bits_stay(tmp_path):
    labels = LABELS.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_labels(_save(tmp_path / 'm.png', labels)), labels)


@pytest.mark.parametrize('name, pixels, text', [
    pytest.param('m.jpg', ONE_REGION, 'm.jpg: it is a JPEG, which changes',
                 id='jpeg'),
    pytest.param('m.png', np.eye(3, dtype=np.uint8)[None] * 255, 'of several colours',
                 id='colours'),
    pytest.param('m.tif', ONE_REGION.astype(np.float32), 'floating point', id='floats'),
])
def test_what_is_no_label_image_is_refused(name, pixels, text, tmp_path):
    with pytest.raises(ImageFormatError, match=text):
        read_labels(_save(tmp_path / name, pixels))


def test_a_picture_is_turned_upright(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    rgb = read_picture(_save(tmp_path / 'p.jpg', pixels, exif=exif))
    assert rgb.shape == (32, 16, 3)
    assert rgb[:14].max() < 40 and rgb[18:].min() > 215


def test_what_is_transparent_becomes_white(tmp_path):
    rgb = read_picture(_save(tmp_path / 'p.png', _layers(ONE_REGION * 0 + 10, ONE_REGION)))
    np.testing.assert_array_equal(rgb[..., 1], np.where(MASK, 10, 255))


@pytest.mark.parametrize('pixels, value', [
    pytest.param(np.full((2, 2), 0x8040, np.uint16), 0x80, id='16 bits'),
    pytest.param(np.full((2, 2), 90, np.uint8), 90, id='grey'),
    pytest.param(np.full((2, 2), True), 255, id='one bit'),
])
def test_grey_becomes_rgb(pixels, value, tmp_path):
    rgb = read_picture(_save(tmp_path / 'p.png', pixels))
    np.testing.assert_array_equal(rgb, np.full((2, 2, 3), value, np.uint8))


def test_floats_are_no_picture(tmp_path):
    with pytest.raises(ImageFormatError, match='floating point numbers, wanted 8 or 16 bit'):
        read_picture(_save(tmp_path / 'p.tif', np.full((2, 2), 0.5, np.float32)))


@pytest.mark.parametrize('name, content', [
    pytest.param('missing.png', None, id='missing'),
    pytest.param('empty.png', b'', id='empty'),
    pytest.param('text.png', b'no picture', id='text'),
])
@pytest.mark.parametrize('read', [read_picture, read_labels])
def test_the_file_is_named(read, name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFormatError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('kind', ['png', 'jpg', 'webp', 'bmp', 'tif'])
def test_a_truncated_file_is_an_error_without_a_warning(kind, share, tmp_path, recwarn):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    path = _save(tmp_path / f'p.{kind}', noise)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    with pytest.raises(ImageFormatError, match=f'p.{kind}'):
        read_picture(path)
    assert not recwarn.list


def test_a_header_of_20000_by_20000_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack('>IIBBBBB', 20000, 20000, 8, 2, 0, 0, 0)
    chunk = b'IHDR' + header
    (tmp_path / 'big.png').write_bytes(b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk
                                       + struct.pack('>I', zlib.crc32(chunk)))
    with pytest.raises(ImageFormatError, match='big.png'):
        read_picture(tmp_path / 'big.png')
