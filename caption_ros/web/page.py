# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page itself: gradio's parts and what happens when somebody touches them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import numpy as np
import numpy.typing as npt
from PIL import Image

from caption_ros.captioner import FOCUS_MODES, MOST_BEAMS, CaptionOptions
from caption_ros.errors import CaptionRosError, OptionError, RegionError
from caption_ros.region import Region, region_from_box, regions_from_labels
from caption_ros.web.painting import (
    COLOURS,
    box_of,
    img_tag,
    painted_labels,
    read_upload,
    to_paint_on,
)
from caption_ros.web.studio import Answer, Studio, Wish

CSS = """
.gradio-container { max-width: 1100px !important; }
#said textarea { font-size: 1.15rem; }
#paint { overflow: hidden; }
#paint button[aria-label="Clear canvas"] { display: none; }  /* takes the picture away, too */
#live img, #result img { width: 100%; max-height: 80vh; object-fit: contain; }
#result img { touch-action: none; cursor: crosshair; user-select: none; }
#drag-box { position: fixed; box-sizing: border-box; z-index: 9; pointer-events: none;
            border: 2px dashed #ff3b30; background: rgb(255 59 48 / 15%); }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } }
"""
FONTS = ('system-ui', 'sans-serif')
# Draws a box while a pointer is dragged over the picture, and tells its edges as shares, 0..1.
DRAG_JS = """
let from = null, picture = null;
const mark = document.createElement('div');
mark.id = 'drag-box';
const area = () => {  // of the picture without the bars beside it
  const frame = picture.getBoundingClientRect();
  const zoom = Math.min(frame.width / picture.naturalWidth, frame.height / picture.naturalHeight);
  const width = picture.naturalWidth * zoom, height = picture.naturalHeight * zoom;
  return {x: frame.x + (frame.width - width) / 2, y: frame.y + (frame.height - height) / 2,
          width, height};
};
const edges = to => [Math.min(from.x, to.x), Math.min(from.y, to.y),
                     Math.max(from.x, to.x), Math.max(from.y, to.y)];
const end = () => { from = null; mark.remove(); };
document.addEventListener('pointerdown', event => {
  if (event.button !== 0 || !event.target.matches('#result img')) return;
  event.preventDefault();
  picture = event.target;
  from = event;
});
document.addEventListener('dragstart', event => {
  if (event.target.matches('#result img')) event.preventDefault();
});
document.addEventListener('pointermove', event => {
  if (!from || event.pointerId !== from.pointerId) return;
  const [x0, y0, x1, y1] = edges(event);
  Object.assign(mark.style, {left: x0 + 'px', top: y0 + 'px', width: x1 - x0 + 'px',
                             height: y1 - y0 + 'px'});
  document.body.append(mark);
});
document.addEventListener('pointercancel', end);
document.addEventListener('pointerup', event => {
  if (!from || event.pointerId !== from.pointerId) return;
  const [x0, y0, x1, y1] = edges(event), {x, y, width, height} = area();
  end();
  if (x1 - x0 > 3 && y1 - y0 > 3)
    trigger('submit', {shares: [(x0 - x) / width, (y0 - y) / height,
                                (x1 - x) / width, (y1 - y) / height]});
});
"""
_LIVE_PERIOD_S = 0.3
_CACHE_S = 300  # what gradio writes to files for browsers is fetched at once
_MOST_UPLOAD = '64mb'
_FRAMED: dict[str, Any] = {'container': True, 'show_label': True, 'padding': True}


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
        filmed = self._live is not None and bool(self._live.topic)
        with gr.Blocks(title='caption_ros', analytics_enabled=False,
                       delete_cache=(_CACHE_S, _CACHE_S)) as page:
            shown, told = gr.State(), gr.State()
            gr.Markdown('# What do you see?\nOpen a picture'
                        + (', or take a frame of the camera,' if filmed else '')
                        + ' and paint on a thing, or drag a box round it. Each colour is a '
                        'region of its own.')
            message = gr.Textbox(label='Message', elem_id='message', interactive=False,
                                 visible=False)
            with gr.Row():
                with gr.Column(min_width=300):
                    upload = gr.File(label='Picture', elem_id='upload', height=140)
                    live = gr.HTML(label=self._live.topic if filmed else '', elem_id='live',
                                   visible=filmed, **_FRAMED)
                    camera = gr.Textbox(label='Camera', elem_id='camera', interactive=False,
                                        visible=False)
                    on = gr.Checkbox(filmed, label='Live', elem_id='live-on', visible=filmed)
                    take = gr.Button('Paint on this frame', elem_id='take', visible=filmed)
                    paint = gr.ImageEditor(
                        label='Paint here', elem_id='paint', type='numpy', sources=(),
                        transforms=(), layers=False, format='png', interactive=True,
                        placeholder='Open a picture first;\nit can be painted on here.',
                        brush=gr.Brush(default_size=22, colors=list(COLOURS),
                                       default_color=COLOURS[0], color_mode='fixed'),
                        buttons=[])
                    anew = gr.Button('Take all paint away', elem_id='anew', size='sm')
                with gr.Column(min_width=300):
                    said = gr.Textbox(label='Caption, score and time', elem_id='said',
                                      interactive=False, lines=3,
                                      placeholder='What the model says comes here.')
                    result = gr.HTML('It is shown here on the picture.', elem_id='result',
                                     label='What was understood', js_on_load=DRAG_JS, **_FRAMED)
                    box = gr.Textbox(label='Box', elem_id='box',
                                     info='Drag one on the picture above, or write its corners '
                                     'in pixels: x0, y0, x1, y1.')
            with gr.Row():
                with gr.Column(min_width=300):
                    model = gr.Dropdown(self._studio.models, value=self._studio.models[0],
                                        label='Model', elem_id='model')
                    focus = gr.Dropdown(list(FOCUS_MODES), value='auto', label='Focus',
                                        elem_id='focus')
                with gr.Column(min_width=300):
                    prompt = gr.Textbox(label='Prompt (of models that take text)',
                                        elem_id='prompt')
                    beams = gr.Slider(1, MOST_BEAMS, value=self._num_beams, step=1,
                                      label='Beams', elem_id='beams')
            wish = [model, focus, prompt, beams]
            outputs = [said, result, message, on]
            # Over the editor it would cover what is painted; a busy browser leaves it there.
            seen: dict[str, Any] = {'show_progress_on': said}
            upload.upload(self._opened, [upload, *wish], [shown, paint, box, *outputs], **seen)
            touched: dict[str, Any] = {'show_progress': 'hidden', 'trigger_mode': 'always_last'}
            anew.click(self._anew, [shown, *wish], [shown, paint, box, *outputs],
                       show_progress='hidden')
            result.submit(self._dragged, [shown, paint, *wish], [box, *outputs], **touched)
            # One event for all, so that an answer to what was before never comes last.
            gr.on([paint.change, box.submit, box.blur, model.change, focus.change, prompt.submit,
                   prompt.blur, beams.change],
                  self._painted, [shown, paint, box, *wish], outputs, **touched)
            if filmed:
                clock = gr.Timer(_LIVE_PERIOD_S)
                clock.tick(self._filmed, [told, *wish], [told, live, said, camera],
                           show_progress='hidden')
                # Ticks also cost a browser that has nothing new to show.
                on.change(lambda on: (gr.Timer(active=on), gr.Textbox(visible=False)), on,
                          [clock, camera], show_progress='hidden')
                take.click(self._taken, wish, [shown, paint, box, *outputs], **seen)
        return page

    def _opened(self, path: str | None, *wish: Any) -> tuple[Any, ...]:
        """Show an uploaded picture; a bad one leaves the one that is there."""
        try:
            if path is None:
                raise OptionError('no picture was sent; choose one')
            return self._begun(Shown(read_upload(Path(path))), *wish)
        except CaptionRosError as error:
            return _nothing_but(error, 3)

    def _taken(self, *wish: Any) -> tuple[Any, ...]:
        """Take the newest frame to paint on."""
        try:
            newest = self._live.newest()
            return self._begun(Shown(newest[1], newest[0]), *wish)
        except CaptionRosError as error:
            return _nothing_but(error, 3)

    def _begun(self, shown: Shown, *wish: Any) -> tuple[Any, ...]:
        """Begin with a picture: no paint, no box."""
        return shown, _canvas(shown), '', *self._said(shown, None, *wish)

    def _anew(self, shown: Shown | None, *wish: Any) -> tuple[Any, ...]:
        """Take paint and box away; the picture stays."""
        return (gr.skip(),) * 7 if shown is None else self._begun(shown, *wish)

    def _filmed(self, told: Any, *wish: Any) -> tuple[Any, ...]:
        """Show the newest frame and what is said of it, once."""
        try:
            new = (self._live.frames, *wish)
            rgb = self._live.newest()[1]
            if new == told:
                self._live.check_that_it_films()
                return (gr.skip(),) * 4
            answer = self._studio.ask(rgb, None, _wish(*wish))
        except CaptionRosError as error:
            return gr.skip(), gr.skip(), gr.skip(), _told(error)
        return new, _shown(answer), _lines(answer), gr.Textbox(visible=False)

    def _dragged(self, event: gr.EventData, shown: Shown | None, painted: Any, *wish: Any,
                 ) -> tuple[Any, ...]:
        """Write down the box that was dragged, and say what is in it."""
        if shown is None:
            return (gr.skip(),) * 5
        height, width = shown.rgb.shape[:2]
        edges = zip(event.shares, (width, height, width, height))
        try:
            cut = box_of(' '.join(str(share * edge) for share, edge in edges), (height, width))
        except CaptionRosError as error:
            return _nothing_but(error, 1)
        text = ', '.join(map(str, cut or ()))
        return text, *self._painted(shown, painted, text, *wish)

    def _painted(self, shown: Shown | None, painted: Any, corners: str, *wish: Any,
                 ) -> tuple[Any, ...]:
        """Say what is painted over, or boxed."""
        try:
            if shown is None:
                if not corners and not _layers(painted):
                    return (gr.skip(),) * 4
                raise OptionError('there is no picture yet; open one, then mark a thing on it')
            regions = self._regions(shown, painted, corners)
        except CaptionRosError as error:
            return _nothing_but(error)
        said, result, message, on = self._said(shown, regions, *wish)
        if regions is None and isinstance(said, str):
            message = _message('Nothing is painted: this is of the whole picture.')
        return said, result, message, on

    def _regions(self, shown: Shown, painted: Any, corners: str) -> list[Region] | None:
        size = (shown.rgb.shape[0], shown.rgb.shape[1])
        box = box_of(corners or '', size)
        labels = painted_labels(_layers(painted), size)
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
        """Return caption, picture and message, and let the live picture rest."""
        try:
            answer = self._studio.ask(shown.rgb, regions, _wish(*wish))
        except CaptionRosError as error:
            return _nothing_but(error)
        return _lines(answer), _shown(answer), gr.Textbox(visible=False), False


def launch_options(host: str, port: int, auth: Any) -> dict[str, Any]:
    """Return what to launch the page with: nothing of it leaves this machine."""
    return {
        'server_name': f'[{host}]' if ':' in host else host, 'server_port': port, 'auth': auth,
        'share': False, 'quiet': True, 'inbrowser': False, 'prevent_thread_lock': True,
        'show_error': True, 'ssr_mode': False,
        'footer_links': [], 'max_file_size': _MOST_UPLOAD, 'css': CSS, 'run_history': False,
        'enable_monitoring': False,
        'theme': gr.themes.Default(font=FONTS, font_mono=('ui-monospace', 'monospace')).set(
            block_info_text_color='*neutral_600', block_info_text_color_dark='*neutral_300'),
    }


def _wish(model: str, focus: str, prompt: str, beams: float) -> Wish:
    return Wish(model, CaptionOptions(focus=focus, prompt=prompt or '', num_beams=int(beams)))


def _canvas(shown: Shown) -> dict[str, Any]:
    picture = Image.fromarray(to_paint_on(shown.rgb))
    # gradio names the file by what is in it and writes it anew, also while a browser reads it.
    picture.info['shown'] = uuid4().hex
    return {'background': picture, 'layers': [], 'composite': None}


def _shown(answer: Answer) -> str:
    # Not gr.Image: that writes every frame to a file, also while a browser reads it.
    return img_tag(to_paint_on(answer.picture), 'The picture with what was understood of it')


def _lines(answer: Answer) -> str:
    lines = [f'{caption.text} (score {caption.score:.2f})' for caption in answer.captions]
    return '\n'.join([*lines, f'{1000 * answer.latency_s:.0f} ms'])


def _layers(painted: Any) -> Sequence[npt.NDArray[np.uint8]]:
    return (painted or {}).get('layers') or ()


def _nothing_but(error: CaptionRosError, more: int = 0) -> tuple[Any, ...]:
    """Return outputs that leave all as it is, behind so many more, and tell an error."""
    return (*(gr.skip(),) * (more + 2), _told(error), gr.skip())


def _told(error: CaptionRosError) -> Any:
    return _message(re.sub(r'\s+', ' ', str(error)))


def _message(text: str) -> Any:
    return gr.Textbox(value=text, visible=True)
