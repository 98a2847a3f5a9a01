# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page itself: gradio's parts and what happens when somebody touches them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from caption_ros.captioner import FOCUS_MODES, CaptionOptions
from caption_ros.errors import CaptionRosError, OptionError, RegionError
from caption_ros.region import Region, region_from_box, regions_from_labels
from caption_ros.web.painting import COLOURS, box_of, painted_labels, read_upload, to_paint_on
from caption_ros.web.studio import Answer, Studio, Wish

CSS = """
.gradio-container { max-width: 1100px !important; }
#said textarea { font-size: 1.15rem; }
#paint, #live, #result { overflow: hidden; }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""
FONTS = ('system-ui', 'sans-serif')
_LIVE_PERIOD_S = 0.3
_MOST_UPLOAD = '64mb'


@dataclass
class Shown:
    """The picture that one visitor paints on.

    Attributes:
        rgb: The picture, shape (H, W, 3), uint8.
        header: Header of the frame that it is, or None of an upload.
    """

    rgb: npt.NDArray[np.uint8]
    header: Any = None


class Page:
    """Builds the page.

    Args:
        studio: The model.
        live: A Live, or None where there is no ROS.
        num_beams: Beams that the page begins with.
    """

    def __init__(self, studio: Studio, live: Any = None, num_beams: int = 1) -> None:
        self._studio = studio
        self._live = live
        self._num_beams = num_beams

    def build(self) -> gr.Blocks:
        """Return the page, to be launched."""
        with gr.Blocks(title='caption_ros', analytics_enabled=False) as page:
            shown = gr.State()
            gr.Markdown('# What do you see?\nOpen a picture, or take a frame of the camera, and '
                        'paint on a thing; each colour is a region.')
            message = gr.Textbox(label='Message', elem_id='message', interactive=False,
                                 visible=False)
            with gr.Row():
                with gr.Column(min_width=300):
                    upload = gr.File(label='Picture', elem_id='upload', height=110)
                    if self._live is not None and self._live.topic:
                        live = gr.Image(label=self._live.topic, elem_id='live',
                                        interactive=False, buttons=[])
                        on = gr.Checkbox(True, label='Live', elem_id='live-on')
                        take = gr.Button('Paint on this frame', elem_id='take')
                    paint = gr.ImageEditor(
                        label='Paint here', elem_id='paint', type='numpy', sources=(),
                        transforms=(), layers=False, format='png', interactive=True,
                        brush=gr.Brush(default_size=22, colors=list(COLOURS),
                                       default_color=COLOURS[0], color_mode='fixed'),
                        buttons=[])
                    box = gr.Textbox(label='Box: x0, y0, x1, y1 in pixels', elem_id='box')
                with gr.Column(min_width=300):
                    said = gr.Textbox(label='Caption', elem_id='said', interactive=False, lines=3)
                    result = gr.Image(label='What was understood', elem_id='result',
                                      interactive=False, buttons=[])
                    model = gr.Dropdown(self._studio.models, value=self._studio.models[0],
                                        label='Model', elem_id='model')
                    focus = gr.Dropdown(list(FOCUS_MODES), value='auto', label='Focus',
                                        elem_id='focus')
                    prompt = gr.Textbox(label='Prompt (of models that take text)',
                                        elem_id='prompt')
                    beams = gr.Slider(1, 8, value=self._num_beams, step=1, label='Beams',
                                      elem_id='beams')
            wish = [model, focus, prompt, beams]
            outputs = [said, result, message]
            upload.upload(self._opened, [upload, *wish], [shown, paint, *outputs])
            touched: dict[str, Any] = {'show_progress': 'hidden', 'trigger_mode': 'always_last'}
            paint.change(self._painted, [shown, paint, box, *wish], outputs, **touched)
            for part in (box.submit, box.blur, model.change, focus.change, prompt.submit,
                         prompt.blur, beams.release):
                part(self._painted, [shown, paint, box, *wish], outputs, **touched)
            if self._live is not None and self._live.topic:
                gr.Timer(_LIVE_PERIOD_S).tick(self._filmed, [on, *wish], [live, said, message],
                                              show_progress='hidden')
                take.click(self._taken, wish, [shown, paint, on, *outputs])
        return page

    def _opened(self, path: str | None, *wish: Any) -> tuple[Any, ...]:
        """Show an uploaded picture; a bad one leaves the one that is there."""
        try:
            if path is None:
                raise OptionError('no picture was sent; choose one')
            shown = Shown(read_upload(Path(path)))
        except CaptionRosError as error:
            return (gr.skip(), gr.skip(), gr.skip(), gr.skip(), _told(error))
        return shown, _canvas(shown), *self._said(shown, None, *wish)

    def _taken(self, *wish: Any) -> tuple[Any, ...]:
        """Take the newest frame to paint on, and let the live picture rest."""
        try:
            newest = self._live.newest()
            if newest is None:
                raise OptionError(f'no frame came on {self._live.topic} yet; is the camera on?')
        except CaptionRosError as error:
            return (gr.skip(),) * 5 + (_told(error),)
        shown = Shown(newest[1], newest[0])
        return shown, _canvas(shown), False, *self._said(shown, None, *wish)

    def _filmed(self, on: bool, *wish: Any) -> tuple[Any, ...]:
        """Show the newest frame and what is said of it."""
        if not on:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            newest = self._live.newest()
            if newest is None:
                return gr.skip(), gr.skip(), gr.skip()
            answer = self._studio.ask(newest[1], None, _wish(*wish))
        except CaptionRosError as error:
            return gr.skip(), gr.skip(), _told(error)
        return to_paint_on(answer.picture), _lines(answer), gr.Textbox(visible=False)

    def _painted(self, shown: Shown | None, painted: Any, corners: str, *wish: Any,
                 ) -> tuple[Any, ...]:
        """Say what is painted over, or boxed."""
        if shown is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            regions = self._regions(shown, painted, corners)
        except CaptionRosError as error:
            return gr.skip(), gr.skip(), _told(error)
        said, result, message = self._said(shown, regions, *wish)
        if regions is None and isinstance(said, str):
            return said, result, _message('Nothing is painted: this is of the whole picture.')
        return said, result, message

    def _regions(self, shown: Shown, painted: Any, corners: str) -> list[Region] | None:
        size = (shown.rgb.shape[0], shown.rgb.shape[1])
        box = box_of(corners or '', size)
        labels = painted_labels((painted or {}).get('layers') or (), size)
        if self._live is not None:
            self._live.publish_box(box)
            if labels is not None:
                self._live.publish_mask(labels, shown.header)
        regions = [] if labels is None else regions_from_labels(labels)
        if box is not None:
            regions.append(region_from_box(box, size, len(COLOURS) + 1))
        if labels is not None and not regions:
            raise RegionError('so little is painted that no pixel of the picture is covered; '
                              'paint more')
        return regions or None

    def _said(self, shown: Shown, regions: list[Region] | None, *wish: Any) -> tuple[Any, ...]:
        try:
            answer = self._studio.ask(shown.rgb, regions, _wish(*wish))
        except CaptionRosError as error:
            return gr.skip(), gr.skip(), _told(error)
        return _lines(answer), to_paint_on(answer.picture), gr.Textbox(visible=False)


def launch_options(host: str, port: int, auth: tuple[str, str] | None) -> dict[str, Any]:
    """Return what to launch the page with: nothing of it leaves this machine."""
    return {
        'server_name': host, 'server_port': port, 'auth': auth, 'share': False, 'quiet': True,
        'inbrowser': False, 'prevent_thread_lock': True, 'show_error': True, 'ssr_mode': False,
        'footer_links': [], 'max_file_size': _MOST_UPLOAD, 'css': CSS, 'run_history': False,
        'enable_monitoring': False,
        'theme': gr.themes.Default(font=FONTS, font_mono=('ui-monospace', 'monospace')),
    }


def _wish(model: str, focus: str, prompt: str, beams: float) -> Wish:
    return Wish(model, CaptionOptions(focus=focus, prompt=prompt or '', num_beams=int(beams)))


def _canvas(shown: Shown) -> dict[str, Any]:
    return {'background': to_paint_on(shown.rgb), 'layers': [], 'composite': None}


def _lines(answer: Answer) -> str:
    lines = [f'{caption.text} (score {caption.score:.2f})' for caption in answer.captions]
    return '\n'.join([*lines, f'{1000 * answer.latency_s:.0f} ms'])


def _told(error: CaptionRosError) -> Any:
    return _message(re.sub(r'\s+', ' ', str(error)))


def _message(text: str) -> Any:
    return gr.Textbox(value=text, visible=True)
