# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros web``: a page to upload, film and paint on."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from caption_ros.captioner import CaptionOptions
from caption_ros.commands.options import Device, Dtype, Model, NumBeams, tell_problems
from caption_ros.errors import OptionError

if TYPE_CHECKING:
    from caption_ros.captioner import Captioner

_LEAST_PASSWORD = 8
_AFTER_A_WRONG_PASSWORD_S = 1.0


def web(
    model: Model = 'tabletop',
    image: str = typer.Option('', help='Image topic to show live, such as /camera/image; one '
                              'that ends in /compressed holds compressed images.'),
    host: str = typer.Option('127.0.0.1', help='Address to serve on; another than this machine '
                             'alone needs --auth.'),
    port: int = typer.Option(7860, min=1, max=65535, help='Port to serve on.'),
    auth: str = typer.Option('', metavar='USER:PASSWORD', help='Ask visitors for these; a file '
                             'that holds them keeps them out of the list of processes: @FILE.'),
    device: Device = 'auto',
    dtype: Dtype = 'auto',
    num_beams: NumBeams = 1,
) -> None:
    """Serve a page: paint on a picture or a camera's frame and see what is said of it."""
    user = _user(auth)
    _check_host(host, user)
    _check_port(host, port)
    CaptionOptions(num_beams=num_beams)  # checks its range
    os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_DISABLE_TELEMETRY': '1'}
    with tempfile.TemporaryDirectory(prefix='caption_ros_web_') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder  # pictures of visitors do not stay
        _serve(model, image, host, port, user, device, dtype, num_beams)


def _serve(model: str, image: str, host: str, port: int, user: tuple[str, str] | None,
           device: str, dtype: str, num_beams: int) -> None:
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise OptionError("the page needs gradio, which is not installed; pip install "
                          "'caption_ros[web]'") from None
    from PIL import Image

    from caption_ros.captioners import KNOWN, load_captioner, ready_checkpoint
    from caption_ros.web.page import Page, launch_options
    from caption_ros.web.painting import MOST_PIXELS
    from caption_ros.web.studio import Studio

    # Pillow refuses twice that; gradio reads by itself what browsers call paint.
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2

    def load(name: str) -> Captioner:
        captioner = load_captioner(name, device=device, dtype=dtype)
        tell_problems(captioner)
        return captioner
    here = [card.name for card in KNOWN.values() if ready_checkpoint(card) is not None]
    studio = Studio(list(dict.fromkeys([model, *here])), load)
    studio.start()
    live = _live(image)
    # A browser that leaves while it uploads is no fault to print.
    logging.getLogger('uvicorn.error').addFilter(lambda record: not _has_left(record))
    # Handlers before the server: a signal may come while it starts.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    page = None
    try:
        page = Page(studio, live, num_beams).build()
        page.launch(**launch_options(host, port, None if user is None else _door(user)))
        typer.echo('caption-ros: the page is at http://'
                   f'{f"[{host}]" if ":" in host else host}:{port}')
        stop.wait()
    finally:
        if page is not None:
            page.close(verbose=False)
        if live is not None:
            live.close()
        studio.close()


def _has_left(record: logging.LogRecord) -> bool:
    from starlette.requests import ClientDisconnect

    return bool(record.exc_info) and isinstance(record.exc_info[1], ClientDisconnect)


def _user(auth: str) -> tuple[str, str] | None:
    """Return user and password.

    Raises:
        OptionError: If they are not given as they must be; the text never holds them.
    """
    if not auth:
        return None
    if auth.startswith('@'):
        try:
            auth = Path(auth[1:]).expanduser().read_text('utf-8').strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f'--auth names the file {auth[1:]!r}, which cannot be read: '
                              f'{error}') from error
    user, colon, password = auth.partition(':')
    if not user or not colon or len(password) < _LEAST_PASSWORD:
        raise OptionError('--auth wants USER:PASSWORD with a password of at least '
                          f'{_LEAST_PASSWORD} letters, or @FILE with these in it')
    return user, password


def _door(user: tuple[str, str]) -> Callable[[str, str], Awaitable[bool]]:
    """Return what lets the user in; others wait, so that guessing takes years."""
    one_at_a_time = asyncio.Lock()

    async def lets_in(name: str, password: str) -> bool:
        async with one_at_a_time:
            # Both are compared whatever the first says, in a time that tells nothing.
            right = [hmac.compare_digest(given.encode(), own.encode())
                     for given, own in zip((name, password), user)]
            if not all(right):
                await asyncio.sleep(_AFTER_A_WRONG_PASSWORD_S)
            return all(right)
    return lets_in


def _check_host(host: str, user: tuple[str, str] | None) -> None:
    try:
        alone = host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not alone and user is None:
        raise OptionError(f'--host {host!r} lets others in; wanted --auth USER:PASSWORD with it, '
                          'or the host 127.0.0.1')


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OptionError(f'cannot serve on {host} port {port}: {error.strerror or error}; '
                              'choose another with --host and --port') from error


def _live(topic: str) -> Any:
    """Return the ROS side, or None where there is no rclpy and nobody asks for a topic."""
    try:
        from caption_ros.web.live import Live
    except ImportError as error:
        if topic:
            raise OptionError(f'--image {topic} needs ROS, and {error.name} is not installed; '
                              'source a ROS workspace or leave --image out') from error
        return None
    try:
        return Live(topic)
    except Exception as error:  # rclpy has several for a name that is none
        raise OptionError(f'--image {topic!r} cannot be listened to: '
                          + ' '.join(str(error).split())) from error
