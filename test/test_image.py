# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import array
import io
import random
import struct
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from caption_ros import image
from caption_ros.errors import ImageFormatError
from caption_ros.image import (
    available_backends,
    labels_from_compressed,
    labels_from_raw,
    rgb_from_compressed,
    rgb_from_raw,
)

HEIGHT, WIDTH = 36, 48
_NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
RGB = cv2.resize(_NOISE, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
GREY = RGB[..., 0]
GREY_RGB = np.dstack([GREY] * 3)
BGR = RGB[..., ::-1]


def _wide(array, low=5):
    return (array.astype(np.uint16) << 8) + low


def _uyvy():
    return cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_UYVY)


def _yuyv():
    return cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_YUY2)


def _nv(order):
    planes = cv2.cvtColor(RGB, cv2.COLOR_RGB2YUV_I420)
    quarter = HEIGHT // 4
    u = planes[HEIGHT:HEIGHT + quarter].reshape(HEIGHT // 2, WIDTH // 2)
    v = planes[HEIGHT + quarter:].reshape(HEIGHT // 2, WIDTH // 2)
    chroma = np.dstack([u, v] if order == 'nv12' else [v, u]).reshape(HEIGHT // 2, WIDTH)
    return np.vstack([planes[:HEIGHT], chroma])


NV_RGB = cv2.cvtColor(_nv('nv12'), cv2.COLOR_YUV2RGB_NV12)
# Encoding, rows of data, the RGB they stand for.
PICTURES = [
    ('rgb8', RGB, RGB), ('bgr8', BGR, RGB), ('rgba8', np.dstack([RGB, GREY]), RGB),
    ('bgra8', np.dstack([BGR, GREY]), RGB), ('mono8', GREY, GREY_RGB), ('8UC1', GREY, GREY_RGB),
    ('8UC3', BGR, RGB), ('8UC4', np.dstack([BGR, GREY]), RGB), ('mono16', _wide(GREY), GREY_RGB),
    ('16UC1', _wide(GREY), GREY_RGB), ('rgb16', _wide(RGB), RGB), ('bgr16', _wide(BGR), RGB),
    ('rgba16', _wide(np.dstack([RGB, GREY])), RGB), ('bgra16', _wide(np.dstack([BGR, GREY])), RGB),
    ('16UC3', _wide(BGR), RGB), ('yuv422', _uyvy(), cv2.cvtColor(_uyvy(), cv2.COLOR_YUV2RGB_UYVY)),
    ('uyvy', _uyvy(), cv2.cvtColor(_uyvy(), cv2.COLOR_YUV2RGB_UYVY)),
    ('yuv422_yuy2', _yuyv(), cv2.cvtColor(_yuyv(), cv2.COLOR_YUV2RGB_YUY2)),
    ('yuyv', _yuyv(), cv2.cvtColor(_yuyv(), cv2.COLOR_YUV2RGB_YUY2)),
    ('nv12', _nv('nv12'), NV_RGB), ('nv21', _nv('nv21'), NV_RGB),
]
CV_BRIDGE = {'bgr8', 'rgba8', 'bgra8', 'mono8', '8UC1', '8UC3', '8UC4'}


def _message(rows, padding=0):
    """Return data and step of rows with padding bytes behind each."""
    packed = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    data = np.full((rows.shape[0], packed.shape[1] + padding), 0xAB, np.uint8)
    data[:, :packed.shape[1]] = packed
    return data.tobytes(), data.shape[1]


def _convert(data, step, encoding, **more):
    return rgb_from_raw(data, height=HEIGHT, width=WIDTH, step=step, encoding=encoding, **more)


def _needs(backend):
    if backend not in (*available_backends(), 'auto'):
        pytest.skip(f'{backend} does not work on this machine')


@pytest.fixture
def without_cv_bridge(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)  # importing it raises ImportError
    image._cv_bridge.cache_clear()
    yield
    image._cv_bridge.cache_clear()


def test_a_cv_bridge_that_fails_to_import_is_done_without(without_cv_bridge):
    assert available_backends() == ('rosbags',)
    assert np.array_equal(_convert(*_message(BGR), 'bgr8'), RGB)
    with pytest.raises(ImageFormatError, match='no working cv_bridge is installed; use backend'):
        _convert(*_message(BGR), 'bgr8', backend='cv_bridge')


def test_a_cv_bridge_that_fails_to_convert_is_done_without(monkeypatch):
    class Broken:
        def imgmsg_to_cv2(self, message, encoding):
            raise RuntimeError('built against another numpy')

    monkeypatch.setattr(image, '_cv_bridge', Broken)
    assert np.array_equal(_convert(*_message(BGR), 'bgr8'), RGB)
    with pytest.raises(ImageFormatError, match=r'by cv_bridge \(built against another numpy\)'):
        _convert(*_message(BGR), 'bgr8', backend='cv_bridge')


def test_an_unknown_backend_is_refused():
    with pytest.raises(ImageFormatError, match="auto, cv_bridge or rosbags, got 'magic'"):
        _convert(*_message(BGR), 'bgr8', backend='magic')


@pytest.mark.parametrize('padding', [0, 6], ids=['packed', 'padded'])
@pytest.mark.parametrize('backend, encoding, rows, rgb', [
    pytest.param(backend, *picture, id=f'{backend} {picture[0]}')
    for backend in ('auto', 'rosbags', 'cv_bridge') for picture in PICTURES
    if backend != 'cv_bridge' or picture[0] in CV_BRIDGE])
def test_every_encoding_gives_its_colours(encoding, rows, rgb, backend, padding):
    _needs(backend)
    data, step = _message(rows, padding)
    result = _convert(data, step, encoding, backend=backend)
    assert result.dtype == np.uint8 and np.array_equal(result, rgb)


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding, rows', [('mono16', _wide(GREY)), ('rgb16', _wide(RGB))])
def test_big_endian_values_are_swapped(encoding, rows, padding):
    data, step = _message(rows.byteswap(), padding)
    expected = GREY_RGB if encoding == 'mono16' else RGB
    assert np.array_equal(_convert(data, step, encoding, is_bigendian=True), expected)


@pytest.mark.parametrize('backend, order', [
    *(('rosbags', order) for order in ('rggb', 'bggr', 'gbrg', 'grbg')),
    *(('cv_bridge', order) for order in ('rggb', 'bggr', 'gbrg'))])  # it has no bayer_grbg8
@pytest.mark.parametrize('bits', [8, 16])
def test_bayer_gives_the_colours_under_its_filter(order, bits, backend):
    _needs(backend)
    colour = {'r': 200, 'g': 90, 'b': 30}
    tile = np.array([[colour[order[0]], colour[order[1]]], [colour[order[2]], colour[order[3]]]])
    rows = np.tile(tile, (HEIGHT // 2, WIDTH // 2)).astype(np.uint8)
    data, step = _message(rows if bits == 8 else _wide(rows))
    result = _convert(data, step, f'bayer_{order}{bits}', backend=backend)
    assert result[10, 10].tolist() == [200, 90, 30]


@pytest.mark.parametrize('order, code', [  # OpenCV names a filter by its second row
    ('rggb', cv2.COLOR_BayerBG2RGB), ('bggr', cv2.COLOR_BayerRG2RGB),
    ('gbrg', cv2.COLOR_BayerGR2RGB), ('grbg', cv2.COLOR_BayerGB2RGB)])
def test_bayer_equals_the_demosaicing_of_opencv(order, code):
    data, step = _message(GREY, 4)
    assert np.array_equal(_convert(data, step, f'bayer_{order}8'), cv2.cvtColor(GREY, code))


@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_a_planar_step_may_share_out_all_bytes_over_the_rows(encoding):
    data = _nv(encoding).tobytes()
    assert np.array_equal(_convert(data, WIDTH * 3 // 2, encoding), NV_RGB)


@pytest.mark.parametrize('encoding, width, height, wanted', [
    ('yuv422', 3, 2, 'wanted an even width'), ('nv12', 2, 3, 'wanted even sides')])
def test_shared_colour_needs_even_sides(encoding, width, height, wanted):
    step = width * (2 if encoding == 'yuv422' else 1)
    with pytest.raises(ImageFormatError, match=wanted):
        rgb_from_raw(bytes(step * height), height=height, width=width, step=step,
                     encoding=encoding)


@pytest.mark.parametrize('kind', [
    bytes, bytearray, memoryview, lambda raw: array.array('B', raw),
    lambda raw: np.frombuffer(raw, np.uint8)],
    ids=['bytes', 'bytearray', 'memoryview', 'array.array', 'numpy'])
@pytest.mark.parametrize('backend', ['auto', 'rosbags'])
def test_data_may_be_any_buffer(kind, backend):
    data, step = _message(BGR, 6)
    assert np.array_equal(_convert(kind(data), step, 'bgr8', backend=backend), RGB)
    assert np.array_equal(rgb_from_compressed(kind(_file(RGB, 'PNG'))), RGB)


def test_the_last_row_may_come_without_its_padding():
    data, step = _message(BGR, 6)
    assert np.array_equal(_convert(data[:-6], step, 'bgr8'), RGB)
    with pytest.raises(ImageFormatError, match='do not match the header'):
        _convert(data[:-7], step, 'bgr8')


def test_a_huge_header_takes_no_memory():
    tracemalloc.start()
    try:
        with pytest.raises(ImageFormatError, match='out of range'):
            rgb_from_raw(b'', height=20000, width=20000, step=60000, encoding='bgr8')
        with pytest.raises(ImageFormatError, match='out of range'):
            rgb_from_compressed(_png_header(20000, 20000))
        with pytest.raises(ImageFormatError, match='out of range'):
            rgb_from_compressed(_png_header(17000, 10))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_nv24_keeps_brightness_and_colour():
    rows = np.vstack([np.full((HEIGHT, WIDTH), 120, np.uint8),
                      np.tile(np.array([90, 160], np.uint8), (2 * HEIGHT, WIDTH // 2))])
    data, step = _message(rows)
    nv12 = np.vstack([rows[:HEIGHT], rows[HEIGHT:HEIGHT + HEIGHT // 2]])
    assert np.array_equal(_convert(data, step, 'nv24'),
                          cv2.cvtColor(nv12, cv2.COLOR_YUV2RGB_NV12))


def test_rgb8_is_not_copied():
    data = bytearray(RGB.tobytes())
    result = _convert(data, WIDTH * 3, 'rgb8')
    data[0] ^= 0xFF
    assert result[0, 0, 0] == data[0]


@pytest.mark.parametrize('fields, text', [
    ({'height': 20000, 'width': 20000, 'step': 60000}, '20000x20000 is out of range'),
    ({'height': 0, 'width': 0, 'step': 0}, '0x0 is out of range'),
    ({'step': WIDTH * 3 - 1}, 'step 143 is too small for 48 pixels of rgb8, wanted 144'),
    ({'height': HEIGHT + 1}, '5184 bytes of data do not match .* wanted 5328 for 48x37 rgb8'),
    ({'height': HEIGHT - 2}, '5184 bytes of data do not match .* wanted 4896 for 48x34 rgb8'),
    ({'encoding': '32FC1'}, "'32FC1' is depth or measurement, not a picture"),
    ({'encoding': 'jpeg'}, "encoding 'jpeg' is not a picture, wanted mono8"),
    ({'encoding': '8UC2'}, "encoding '8UC2' is not a picture"),
    ({'encoding': ''}, "encoding '' is not a picture"),
    ({'encoding': 'uyvy16'}, "encoding 'uyvy16' is not a picture"),
])
def test_a_bad_header_says_what_came_and_what_was_wanted(fields, text):
    good = {'height': HEIGHT, 'width': WIDTH, 'step': WIDTH * 3, 'encoding': 'rgb8'}
    with pytest.raises(ImageFormatError, match=text):
        rgb_from_raw(RGB.tobytes(), **{**good, **fields})


@pytest.mark.parametrize('encoding, dtype', [
    ('mono8', 'u1'), ('8UC1', 'u1'), ('8SC1', 'i1'), ('mono16', 'u2'), ('16UC1', 'u2'),
    ('16SC1', 'i2'), ('32SC1', 'i4')])
@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('big', [False, True])
def test_label_values_survive(encoding, dtype, padding, big):
    labels = np.array([[0, 1, 100], [3, 0, -7 if 'i' in dtype else 7]]).astype(dtype)
    data, step = _message(labels.byteswap() if big else labels, padding)
    result = labels_from_raw(data, height=2, width=3, step=step, encoding=encoding,
                             is_bigendian=big)
    assert np.array_equal(result, labels)


@pytest.mark.parametrize('encoding', ['rgb8', '32FC1', '64FC1', 'bogus'])
def test_what_holds_no_labels_is_refused(encoding):
    with pytest.raises(ImageFormatError, match=f"'{encoding}' holds no labels, wanted one of"):
        labels_from_raw(b'', height=2, width=2, step=2, encoding=encoding)


def _file(array, kind, **more):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **more)
    return out.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
@pytest.mark.parametrize('format_text', ['', 'jpg', 'png', 'bgr8; jpeg compressed bgr8'])
def test_a_compressed_image_is_known_by_its_bytes(kind, format_text):
    result = rgb_from_compressed(_file(RGB, kind), format_text)
    assert np.abs(result.astype(int) - RGB).mean() < (1 if kind == 'PNG' else 12)


def test_16_bit_and_palette_pngs_are_pictures():
    assert np.array_equal(rgb_from_compressed(_file(_wide(GREY), 'PNG')), GREY_RGB)
    palette = io.BytesIO()
    Image.fromarray(RGB).quantize(16).save(palette, 'PNG')
    assert rgb_from_compressed(palette.getvalue()).shape == RGB.shape


def test_an_orientation_tag_does_not_turn_a_camera_frame():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert rgb_from_compressed(_file(RGB, 'JPEG', exif=exif)).shape == RGB.shape


def _png_header(width, height):
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + body
            + struct.pack('>I', zlib.crc32(body)) + b'\0\0\0\0IDAT' + b'\0' * 8)


@pytest.mark.parametrize('data, text', [
    pytest.param(_file(RGB, 'JPEG')[:700], 'is broken', id='cut JPEG'),
    pytest.param(_file(RGB, 'PNG')[:700], 'is broken', id='cut PNG'),
    pytest.param(b'\xff\xd8\xff' + b'x' * 50, 'is broken', id='noise behind a JPEG mark'),
    pytest.param(b'GIF89a' + b'x' * 50, 'neither JPEG nor PNG', id='GIF'),
    pytest.param(b'', 'of 0 bytes is neither JPEG nor PNG', id='empty'),
    pytest.param(_png_header(20000, 20000), 'claims a size out of range', id='20000x20000'),
    pytest.param(b'\0' * 12 + _file(RGB, 'PNG'), 'looks like compressedDepth', id='depth bytes'),
])
def test_a_bad_compressed_image_says_what_came(data, text):
    with pytest.raises(ImageFormatError, match=text):
        rgb_from_compressed(data)


def test_compressed_depth_is_refused_by_name():
    with pytest.raises(ImageFormatError, match='is depth, not a picture'):
        rgb_from_compressed(b'', '16UC1; compressedDepth png')


def test_labels_come_from_png_only():
    labels = np.array([[0, 3], [300, 0]], np.uint16)
    assert np.array_equal(labels_from_compressed(_file(labels, 'PNG')), labels)
    with pytest.raises(ImageFormatError, match='JPEG, which changes label values'):
        labels_from_compressed(_file(GREY, 'JPEG'))


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_labels_of_few_bits_keep_their_values(bits):
    values = [0, 1, 2 ** bits - 1, 0]
    packed = sum(value << bits * (3 - i) for i, value in enumerate(values))
    line = (packed << max(0, 8 - 4 * bits)).to_bytes(max(1, bits // 2), 'big')

    def chunk(kind, body):
        return (struct.pack('>I', len(body)) + kind + body
                + struct.pack('>I', zlib.crc32(kind + body)))

    png = (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 4, 1, bits, 0, 0, 0, 0))
           + chunk(b'IDAT', zlib.compress(b'\0' + line)) + chunk(b'IEND', b''))
    assert labels_from_compressed(png).tolist() == [values]


def test_a_colour_png_is_no_mask():
    with pytest.raises(ImageFormatError, match='colour mode RGB, wanted one channel'):
        labels_from_compressed(_file(RGB, 'PNG'))


@pytest.mark.parametrize('read', [rgb_from_compressed, labels_from_compressed])
@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_damaged_files_raise_nothing_but_the_format_error(kind, read):
    chance, whole = random.Random(0), _file(GREY, kind)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[:chance.randrange(2, len(whole))])
        damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        try:
            read(bytes(damaged))
        except ImageFormatError:
            refused += 1
    assert refused > 100
