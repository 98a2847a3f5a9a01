# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Serialized messages taken into memory that is used again.

For each message rclpy asks for new memory, has it filled, and copies it to bytes, which is new
memory again: ten milliseconds for an image of 1920x1080 where Linux has to clear both first. Here
rcl fills memory that an earlier message had, in one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import rclpy
from rclpy.subscription import Subscription

_FIRST_SIZE = 4096  # of memory, until the first message tells more; bytes
_LOOK_BACK = 256  # messages; what none of them needed is given back
_MOST_IDLE = 8  # pieces of memory that wait for another message
# Its take asks for memory once, with reallocate, and holds no lock meanwhile that somebody could
# wait for with the interpreter's. Others have not been run.
_MIDDLEWARE = 'rmw_fastrtps_cpp'
_OK, _NONE_THERE = 0, 401  # RCL_RET_OK and RCL_RET_SUBSCRIPTION_TAKE_FAILED
_NO_NUMBER = 2 ** 64 - 1  # RMW_MESSAGE_INFO_SEQUENCE_NUMBER_UNSUPPORTED
_GID_SIZE = 16

Take = Callable[[], Any]


class _Allocator(ctypes.Structure):
    """rcutils_allocator_t, the same since ROS 2 Foxy, as are the others but for their ends."""

    allocate_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    deallocate_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    reallocate_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
                                       ctypes.c_void_p)
    zero_allocate_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t,
                                          ctypes.c_void_p)
    _fields_ = [('allocate', allocate_type), ('deallocate', deallocate_type),
                ('reallocate', reallocate_type), ('zero_allocate', zero_allocate_type),
                ('state', ctypes.c_void_p)]


class _Message(ctypes.Structure):
    """rcl_serialized_message_t."""

    _fields_ = [('buffer', ctypes.c_void_p), ('length', ctypes.c_size_t),
                ('capacity', ctypes.c_size_t), ('allocator', _Allocator)]


class _Info(ctypes.Structure):
    """rmw_message_info_t, since ROS 2 Humble."""

    _fields_ = [('source_timestamp', ctypes.c_int64), ('received_timestamp', ctypes.c_int64),
                ('publication_sequence_number', ctypes.c_uint64),
                ('reception_sequence_number', ctypes.c_uint64),
                ('publisher_implementation', ctypes.c_void_p),
                ('publisher_gid', ctypes.c_uint8 * _GID_SIZE),
                ('rest', ctypes.c_uint8 * 128)]  # longer gids, and what later releases add


class _ErrorString(ctypes.Structure):
    """rcutils_error_string_t."""

    _fields_ = [('text', ctypes.c_char * 1024)]


class Memory:
    """Memory for messages, of one size or nearly so, lent out and used again.

    What nobody looks at any more may be lent anew. No more of it stays than was needed of late.
    """

    def __init__(self) -> None:
        self._size = _FIRST_SIZE
        self._idle: deque[mmap.mmap] = deque(maxlen=_MOST_IDLE)
        self._messages = 0
        self._largest = 0
        self._least_idle = 0

    def lend(self, size: int = 0) -> np.ndarray:
        """Return memory, uint8, for at least as many bytes as messages have had, or as given."""
        if size > self._size:
            self._resize(size)
        whole = self._idle.pop() if self._idle else _mapping(self._size)
        if len(whole) != self._size:  # came back on another thread while the size changed
            whole = _mapping(self._size)
        self._least_idle = min(self._least_idle, len(self._idle))
        lent = np.frombuffer(whole, np.uint8)  # what views look into
        weakref.finalize(lent, self._take_back, whole).atexit = False
        return lent

    def view(self, lent: np.ndarray, length: int) -> memoryview:
        """Return the message in what was lent, read only; now and then let go of memory."""
        self._messages += 1
        self._largest = max(self._largest, length)
        if self._messages % _LOOK_BACK == 0:
            needed = max(self._largest, _FIRST_SIZE)
            if self._size > 2 * needed:
                self._resize(needed)
            for _ in range(self._least_idle):
                self._idle.popleft()
            self._largest, self._least_idle = 0, len(self._idle)
        return memoryview(lent)[:length].toreadonly()

    def _resize(self, size: int) -> None:
        self._size = size + size // 8  # a JPEG is now larger, now smaller
        self._idle.clear()
        self._least_idle = 0

    def _take_back(self, whole: mmap.mmap) -> None:
        if len(whole) == self._size:
            self._idle.append(whole)


def _mapping(size: int) -> mmap.mmap:
    """Return memory that is the system's again, all of it, when nobody looks at it."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Place:
    """Where the next message goes.

    Apart from what takes it, which else would be part of a cycle: rcl's allocator leads here.
    """

    def __init__(self) -> None:
        self.memory = Memory()
        self.lent: np.ndarray | None = None

    def grow(self, size: int = 0) -> int | None:
        """Return where as much memory is, None of none; what was in it is no message's yet."""
        try:
            if self.lent is None or size > self.lent.size:
                self.lent = self.memory.lend(size)
        except Exception:  # of which rcl would not learn; it tells what NULL means
            return None
        return int(self.lent.ctypes.data)


class _Taker:
    """Takes serialized messages of a subscription as views of memory that is used again."""

    def __init__(self, library: ctypes.CDLL, subscription: Subscription) -> None:
        self._library = library
        self._subscription = subscription
        self._place = place = _Place()
        self._allocator = _Allocator(
            _Allocator.allocate_type(lambda size, state: None),
            _Allocator.deallocate_type(lambda pointer, state: None),
            _Allocator.reallocate_type(lambda pointer, size, state: place.grow(size)),
            _Allocator.zero_allocate_type(lambda count, size, state: None),
            None)

    def __call__(self) -> tuple[memoryview, dict[str, Any]] | None:
        """Return a message and what is told of it, as rclpy's take_message does; None of none.

        Raises:
            RuntimeError: If it cannot be taken.
        """
        place, info = self._place, _Info()
        start = place.grow()
        size = 0 if place.lent is None else place.lent.size
        message = _Message(start, 0, size, self._allocator)
        status = self._library.rcl_take_serialized_message(
            self._subscription.handle.pointer, ctypes.byref(message), ctypes.byref(info), None)
        if status != _OK:
            if status == _NONE_THERE:
                return None
            text = self._library.rcutils_get_error_string().text.decode(errors='replace')
            self._library.rcutils_reset_error()
            raise RuntimeError(f'rcl_take_serialized_message returned {status}: {text}')
        lent, place.lent = place.lent, None
        return place.memory.view(lent, message.length), _told(info)


def _told(info: _Info) -> dict[str, Any]:
    number, gid = info.publication_sequence_number, bytes(info.publisher_gid)
    return {'source_timestamp': info.source_timestamp,
            'received_timestamp': info.received_timestamp,
            'publication_sequence_number': None if number == _NO_NUMBER else number,
            'publisher_gid': {'data': gid} if any(gid) else None}


@cache
def _library() -> ctypes.CDLL | None:
    """Return rcl, which rclpy has loaded; None with other middleware or by another name."""
    if rclpy.get_rmw_implementation_identifier() != _MIDDLEWARE:
        return None
    try:
        library = ctypes.CDLL('librcl.so', mode=os.RTLD_NOLOAD | os.RTLD_NOW)  # and no other one
        take = library.rcl_take_serialized_message
        library.rcutils_get_error_string.restype = _ErrorString
        library.rcutils_reset_error.restype = None
    except (OSError, AttributeError):
        return None
    take.argtypes = [ctypes.c_void_p] * 4
    return library


def take_of(subscription: Subscription) -> Take:
    """Return what takes a message of a subscription and tells of it, as rclpy's take_message does.

    Serialized messages are views of memory that is used again when no view is left.
    """
    library = _library() if subscription.raw else None
    if library is not None:
        return _Taker(library, subscription)
    return lambda: subscription.handle.take_message(subscription.msg_type, subscription.raw)
