# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Message bytes to arrays: raw and compressed images to RGB, masks to label images.

Rows are unpadded, byte order mended and sizes checked here, because the libraries behind get
padding wrong without an error; colour conversion is theirs: cv_bridge where a working one is
installed, rosbags-image elsewhere. 16-bit images keep their upper eight bits.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.errors import ImageFormatError

Buffer = Any  # bytes, bytearray, memoryview, array.array or a uint8 array
Rgb = npt.NDArray[np.uint8]

MAX_SIDE_PX = 16384
MAX_PIXELS = 100_000_000

# Unnamed channels are taken as cv_bridge takes them.
_ALIASES = {'8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8',
            '16UC1': 'mono16', '16UC3': 'bgr16', '16UC4': 'bgra16',
            'yuv422': 'uyvy', 'yuv422_yuy2': 'yuyv'}
_CHANNELS = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4, 'bayer_rggb': 1,
             'bayer_bggr': 1, 'bayer_gbrg': 1, 'bayer_grbg': 1}
# Encoding to what the 8-bit picture is called, channels, bytes per channel.
_PICTURES = {
    **{base + '8': (base + '8', channels, 1) for base, channels in _CHANNELS.items()},
    **{base + '16': (base + '8', channels, 2) for base, channels in _CHANNELS.items()},
    'uyvy': ('uyvy', 2, 1), 'yuyv': ('yuyv', 2, 1),
    'nv12': ('nv12', 1, 1), 'nv21': ('nv21', 1, 1), 'nv24': ('nv24', 1, 1),
}
# Encoding to rows of data per image row: chroma lies below the brightness.
_PLANAR = {'nv12': 1.5, 'nv21': 1.5, 'nv24': 3.0}
# Encoding of a label image to numpy type.
_LABELS = {'mono8': 'u1', '8UC1': 'u1', '8SC1': 'i1', 'mono16': 'u2', '16UC1': 'u2',
           '16SC1': 'i2', '32SC1': 'i4'}
_DEPTH = re.compile(r'(32F|64F)(C[0-9]+)?')
# What PyPI's cv_bridge gets right; it has no bayer_grbg8, for one.
_CV_BRIDGE_ENCODINGS = frozenset(('bgr8', 'rgba8', 'bgra8', 'mono8', 'bayer_rggb8',
                                  'bayer_bggr8', 'bayer_gbrg8'))


def check_size(height: int, width: int) -> None:
    """Refuse sizes that no camera has, before memory is taken for them.

    Raises:
        ImageFormatError: If a side is not 1 to 16384 pixels or there are over 100 million.
    """
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX
            and height * width <= MAX_PIXELS):
        raise ImageFormatError(
            f'image size {width}x{height} is out of range, wanted 1 to {MAX_SIDE_PX} pixels a '
            f'side and at most {MAX_PIXELS // 1_000_000} million in all; '
            + ('make it smaller' if min(height, width) > 0 else 'set the size of the data'))


def _plane(data: Buffer, height: int, width: int, step: int, itemsize: int, channels: int,
           is_bigendian: bool, encoding: str, rows: float = 1.0) -> npt.NDArray[Any]:
    """View the bytes as (height * rows, width * channels) without padding, native byte order."""
    check_size(height, width)
    lines = int(height * rows)
    row_bytes = width * channels * itemsize
    have = memoryview(data).nbytes
    if step < row_bytes:
        raise ImageFormatError(f'step {step} is too small for {width} pixels of {encoding}, '
                               f'wanted {row_bytes} or more; correct step or encoding in the '
                               'publisher')
    # The last row may come without its padding: nothing is missing then.
    if not step * lines - (step - row_bytes) <= have <= step * lines:
        raise ImageFormatError(
            f'{have} bytes of data do not match the header, wanted {step * lines} for '
            f'{width}x{height} {encoding} with step {step}; correct the publisher')
    flat = np.frombuffer(data, np.uint8)
    if step == row_bytes:
        packed = flat.reshape(lines, row_bytes)
    else:
        packed = np.ascontiguousarray(np.lib.stride_tricks.as_strided(
            flat, (lines, row_bytes), (step, 1), writeable=False))
    order = '>' if is_bigendian else '<'
    typed = packed.view(np.dtype(f'{order}u{itemsize}'))
    return np.asarray(typed.astype(f'=u{itemsize}', copy=False))


def _split(encoding: str) -> tuple[str, int, int]:
    """Return the 8-bit name, channels and bytes per channel of an encoding that is a picture."""
    found = _PICTURES.get(_ALIASES.get(encoding, encoding))
    if found is not None:
        return found
    if _DEPTH.fullmatch(encoding):
        raise ImageFormatError(f'encoding {encoding!r} is depth or measurement, not a picture; '
                               'subscribe to the colour image')
    raise ImageFormatError(
        f'encoding {encoding[:40]!r} is not a picture, wanted mono8, rgb8, bgr8, rgba8, bgra8, '
        'bayer_rggb8 and so on, the same with 16, 8UC1, 8UC3, 8UC4, 16UC1, yuv422, yuv422_yuy2, '
        'nv12, nv21 or nv24; subscribe to a colour image or convert it first')


def rgb_from_raw(
    data: Buffer, *, height: int, width: int, step: int, encoding: str,
    is_bigendian: bool = False, backend: str = 'auto',
) -> Rgb:
    """Convert the fields of a sensor_msgs/Image to RGB.

    Args:
        data: Pixel bytes; not copied for rgb8 without padding.
        height: Rows.
        width: Columns.
        step: Bytes from row to row.
        encoding: Name as in sensor_msgs/image_encodings. 8UC3 and 8UC4 are taken as bgr and
            bgra, as cv_bridge does; 16-bit values lose their lower eight bits.
        is_bigendian: Byte order of 16-bit values.
        backend: ``cv_bridge``, ``rosbags``, or ``auto``: cv_bridge where it works.

    Returns:
        RGB image, shape (H, W, 3), uint8; read-only where it shares the message's memory.

    Raises:
        ImageFormatError: If size and data do not match or the encoding is not a picture.
    """
    name, channels, itemsize = _split(encoding)
    if name in ('uyvy', 'yuyv') and width % 2:
        raise ImageFormatError(f'{encoding} with width {width} shares colour between pixels, '
                               'wanted an even width; crop the image in the driver')
    if name in _PLANAR and (width % 2 or height % 2):
        raise ImageFormatError(f'{encoding} of {width}x{height} shares colour between pixels, '
                               'wanted even sides; crop the image in the driver')
    if name in _PLANAR and step * height == memoryview(data).nbytes and (
            step == width * _PLANAR[name]):
        # The message's own text wants step * height bytes; others give the brightness row.
        step = width
    plane = _plane(data, height, width, step, itemsize, channels, bool(is_bigendian), encoding,
                   _PLANAR.get(name, 1.0))
    if itemsize == 2:
        plane = (plane >> 8).astype(np.uint8)
    if name == 'rgb8':
        return plane.reshape(height, width, 3)
    if name == 'nv24':  # full chroma: keep every second sample, which makes it nv12
        chroma = plane[height:].reshape(height, width, 2)[::2, ::2].reshape(height // 2, width)
        plane, name = np.vstack([plane[:height], chroma]), 'nv12'
    plane = np.ascontiguousarray(plane)
    convert = _converter(name, backend)
    try:
        return convert(plane, name, height, width)
    except Exception as error:  # each library has errors of its own
        if backend == 'auto' and convert is _by_cv_bridge:
            return _by_rosbags(plane, name, height, width)
        raise ImageFormatError(f'{encoding} of {width}x{height} could not be converted by '
                               f'{backend} ({error}); try another backend or encoding') from error


def _converter(name: str, backend: str) -> Callable[[npt.NDArray[Any], str, int, int], Rgb]:
    if backend not in ('auto', 'cv_bridge', 'rosbags'):
        raise ImageFormatError(f"backend must be auto, cv_bridge or rosbags, got '{backend}'")
    if backend == 'cv_bridge' and _cv_bridge() is None:
        raise ImageFormatError('no working cv_bridge is installed; use backend auto')
    if backend == 'cv_bridge' and name not in _CV_BRIDGE_ENCODINGS:
        raise ImageFormatError(f'cv_bridge is not trusted with {name}; use backend auto')
    if backend != 'rosbags' and name in _CV_BRIDGE_ENCODINGS and _cv_bridge() is not None:
        return _by_cv_bridge
    return _by_rosbags


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    """Return a working CvBridge or None; one compiled against another numpy fails to import."""
    try:
        from cv_bridge import CvBridge
        bridge = CvBridge()
        probe = SimpleNamespace(height=1, width=1, step=3, encoding='bgr8', is_bigendian=0,
                                data=b'\x01\x02\x03')
        if bridge.imgmsg_to_cv2(probe, 'rgb8').tolist() == [[[3, 2, 1]]]:
            return bridge
    except Exception:  # noqa: BLE001 - whatever is wrong with it, there is another way
        pass
    return None


def available_backends() -> tuple[str, ...]:
    """Return the colour conversion libraries that work here."""
    return ('cv_bridge', 'rosbags') if _cv_bridge() is not None else ('rosbags',)


def _message(plane: npt.NDArray[Any], name: str, height: int, width: int) -> SimpleNamespace:
    return SimpleNamespace(height=height, width=width, step=plane.shape[1], encoding=name,
                           is_bigendian=int(sys.byteorder == 'big'), data=plane)


def _by_cv_bridge(plane: npt.NDArray[Any], name: str, height: int, width: int) -> Rgb:
    rgb = _cv_bridge().imgmsg_to_cv2(_message(plane, name, height, width), 'rgb8')
    return np.asarray(rgb).reshape(height, width, 3)


def _by_rosbags(plane: npt.NDArray[Any], name: str, height: int, width: int) -> Rgb:
    from rosbags.image.image import convert_color
    if name.startswith(('nv', 'mono', 'bayer')):
        pixels = plane
    else:
        pixels = plane.reshape(height, width, -1)
    rgb = np.asarray(convert_color(pixels, name, 'rgb8'), np.uint8)
    return rgb.reshape(height, width, 3)


def labels_from_raw(
    data: Buffer, *, height: int, width: int, step: int, encoding: str,
    is_bigendian: bool = False,
) -> npt.NDArray[np.integer]:
    """Convert the fields of a mask's sensor_msgs/Image to a label image.

    Returns:
        Label image, shape (H, W), integer of the encoding's own width.

    Raises:
        ImageFormatError: If size and data do not match or the encoding holds no labels.
    """
    if encoding not in _LABELS:
        raise ImageFormatError(f'mask encoding {encoding[:40]!r} holds no labels, wanted one of '
                               f'{", ".join(_LABELS)}; remap mask to a label image')
    kind = np.dtype(_LABELS[encoding])
    plane = _plane(data, height, width, step, kind.itemsize, 1, bool(is_bigendian), encoding)
    return np.asarray(plane.view(kind.newbyteorder('=')))


def _open(data: Buffer, what: str) -> Any:
    """Open a JPEG or PNG by its bytes, with its size checked before it is decoded."""
    from PIL import Image, UnidentifiedImageError
    raw = bytes(data)
    if not raw.startswith((b'\xff\xd8', b'\x89PNG')):
        hint = ''
        if raw[12:16] == b'\x89PNG' or raw[12:14] == b'\xff\xd8':
            hint = ' (it looks like compressedDepth, which is no picture: use the colour topic)'
        raise ImageFormatError(f'{what} of {len(raw)} bytes is neither JPEG nor PNG{hint}; '
                               'set the publisher to one of these')
    try:
        _ignore_warnings_of_size()
        picture = Image.open(io.BytesIO(raw), formats=('JPEG', 'PNG'))
    except Image.DecompressionBombError as error:
        raise ImageFormatError(f'{what} of {len(raw)} bytes claims a size out of range, wanted at '
                               f'most {MAX_PIXELS // 1_000_000} million pixels; correct the '
                               'publisher') from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = re.sub(r'<_io\.\S+ .*?>', 'it', str(error))  # Pillow shows an address
        raise ImageFormatError(f'{what} of {len(raw)} bytes is broken: {reason}; look at the '
                               'publisher or the link') from error
    check_size(picture.height, picture.width)
    return picture


@lru_cache(maxsize=1)
def _ignore_warnings_of_size() -> None:
    """Keep Pillow from printing what check_size says, once: frames come on several threads."""
    from PIL import Image
    warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def _decode(picture: Any, what: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageFormatError(f'{what} of {picture.width}x{picture.height} pixels is broken: '
                               f'{error}; look at the publisher or the link') from error


def rgb_from_compressed(data: Buffer, format: str = '') -> Rgb:
    """Decode the data of a sensor_msgs/CompressedImage to RGB.

    Args:
        data: JPEG or PNG file, told apart by its bytes; an orientation tag is ignored, since
            masks lie on the sensor's own grid.
        format: The message's format text, only used to name compressedDepth.

    Returns:
        RGB image, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is broken, cut off, too large, depth or another format.
    """
    if 'compressedDepth' in format:
        raise ImageFormatError(f"format '{format}' is depth, not a picture; subscribe to the "
                               'colour image')
    picture = _open(data, 'compressed image')
    if picture.mode.startswith('I') or picture.mode == 'F':  # 16-bit grey
        grey = (_decode(picture, 'compressed image').astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        if picture.mode != 'RGB':  # else the conversion is one more copy
            picture = picture.convert('RGB')
        return _decode(picture, 'compressed image')
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageFormatError):
            raise
        raise ImageFormatError(f'compressed image of {picture.width}x{picture.height} pixels is '
                               f'broken: {error}') from error


def labels_from_compressed(data: Buffer) -> npt.NDArray[np.integer]:
    """Decode a PNG mask to a label image, shape (H, W), integer.

    Raises:
        ImageFormatError: If it is no one-channel PNG; JPEG changes label values.
    """
    picture = _open(data, 'compressed mask')
    if picture.format != 'PNG':
        raise ImageFormatError('compressed mask is a JPEG, which changes label values, '
                               'wanted PNG; set the publisher to png')
    if picture.mode not in ('1', 'L', 'P') and not picture.mode.startswith('I'):
        raise ImageFormatError(f'compressed mask has colour mode {picture.mode}, wanted one '
                               'channel of labels; convert it to grey first')
    labels = _decode(picture, 'compressed mask')
    if labels.dtype == np.bool_:
        return labels.astype(np.uint8)
    bits, colour_type = bytes(memoryview(data).cast('B')[24:26])
    if colour_type == 0 and bits < 8:  # the decoder stretches 2 and 4 bits of grey to 0..255
        labels = labels // (255 // (2 ** bits - 1))
    return labels
