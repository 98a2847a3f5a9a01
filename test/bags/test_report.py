# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page beside a captioned recording, in a real browser, and its size."""

import json
import re
import shutil

import numpy as np
import pytest

from caption_ros.bags import report
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.bags.report import Report
from caption_ros.caption import Caption
from caption_ros.errors import OutputError

HOSTILE = '</script><img src=x onerror="window.harmed=1"><!--<script>\u2028{title}'
RECORD = {'stamp': {'sec': 5, 'nanosec': 7},
          'captions': [{'text': 'a mug', 'score': 0.5, 'region': None}]}


@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('no chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page; at the end nothing may have gone wrong in it and nothing been asked for."""
    wrong, asked = [], []
    page = browser.new_page()
    page.on('console', lambda message: wrong.append(message.text))
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('request', lambda request: asked.append(request.url))

    def open_page(path):
        page.goto(path.as_uri())
        return page
    yield open_page
    page.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith('data:')] == [asked[0]]


class Teller:
    """Says where in the recording a frame is, and one thing that a page must not run."""

    name, family, focus_modes, device, dtype = 'teller', 'fake', ('alpha',), 'cpu', 'float32'

    def __init__(self):
        self.frames = 0

    def caption(self, rgb, regions, options):
        self.frames += 1
        texts = [f'thing {region.label} of frame {self.frames - 1}' for region in regions]
        if self.frames == 3:
            texts[0] = HOSTILE
        if self.frames == 5:
            texts[0] = 'une Théière rouge'
        return [Caption(words, 0.5, 'alpha', region) for words, region in zip(texts, regions)]

    def close(self):
        pass


@pytest.fixture
def page(opened, tmp_path, bags):
    source = bags.write(tmp_path / 'drive <b>', bags.camera(8, masks=True))
    caption_bag(source, tmp_path / 'r/o.mcap', Teller)
    return opened(tmp_path / 'r/report.html')


def _rows(page):
    return [int(row.get_attribute('data-frame')) for row in page.query_selector_all('#list > li')]


def test_search_finds_a_caption_and_a_click_shows_its_frame(page):
    assert page.inner_text('h1') == 'drive <b>'
    assert _rows(page) == list(range(8))
    page.fill('#words', 'frame 6')
    assert _rows(page) == [6]
    assert page.inner_text('#found').endswith('captions in 1 frames')
    assert {mark.inner_text() for mark in page.query_selector_all('#list mark')} == {'frame', '6'}
    shown = page.get_attribute('#picture', 'src')
    page.fill('#words', 'THEIERE')  # neither case nor accents matter
    assert _rows(page) == [4]
    page.click('#list button')
    assert page.get_attribute('#picture', 'src') not in (shown, None)
    assert page.inner_text('#when').startswith('0:00.4')
    assert 'une Théière rouge' in page.inner_text('#said')
    page.fill('#words', 'nowhere')
    assert _rows(page) == [] and page.inner_text('#found') == '0 captions in 0 frames'


def test_regions_are_drawn_and_the_one_clicked_stands_out(page):
    regions = len(page.query_selector_all('#said li'))
    assert regions > 1
    assert len(page.query_selector_all('#regions polygon.case')) == regions
    assert page.query_selector('#regions polygon.chosen') is None
    page.click('#list li:nth-child(2) button:nth-of-type(2)')
    assert len(page.query_selector_all('#regions polygon.chosen')) == 1
    assert page.get_attribute('#regions', 'viewBox') == '0 0 320 240'
    assert page.evaluate('document.getElementById("picture").naturalWidth') == 320


def test_the_timeline_and_the_keyboard_go_through_the_recording(page):
    page.fill('#position', '310')  # milliseconds
    assert page.inner_text('#when').startswith('0:00.3')
    page.keyboard.press('Tab')
    page.keyboard.press('ArrowRight')
    assert page.inner_text('#when').startswith('0:00.4')
    marks = ('(() => { const c = document.getElementById("marks"); return c.getContext("2d")'
             '.getImageData(0, 0, c.width, c.height).data.some(x => x > 0); })()')
    assert page.evaluate(marks)


def test_hostile_captions_are_shown_as_text_and_harm_nothing(page):
    page.fill('#words', 'onerror')
    assert _rows(page) == [2]
    assert re.sub(r'\s', ' ', page.inner_text('#list button >> nth=0')) == re.sub(
        r'\s', ' ', HOSTILE)
    assert page.query_selector('img[src="x"]') is None
    assert page.evaluate('window.harmed') is None


def _long(path, frames, rgb):
    with Report(path, 'long', ['/a'], 0, frames * 10 ** 9, frames) as made:
        for i in range(frames):
            made.add('/a', i * 10 ** 9, {**RECORD, 'captions': [
                {'text': f'mug {i}', 'score': 0.5, 'region': None}]}, [None],
                rgb if made.wants_picture() else None)


def test_a_long_recording_gives_a_page_of_bounded_size_that_works(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(report, '_PICTURES_BYTES', 300_000)
    monkeypatch.setattr(report, 'MOST_PICTURES', 50)
    monkeypatch.setattr(report, 'MOST_FRAMES', 400)
    noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)  # worst for JPEG
    sizes = []
    for frames in (400, 4000):
        _long(tmp_path / f'{frames}.html', frames, noise)
        sizes.append((tmp_path / f'{frames}.html').stat().st_size)
    assert max(sizes) < 300_000 * 4 / 3 + 400 * 120 + 20_000
    page = opened(tmp_path / '4000.html')
    assert 'One frame in 80 has its picture here.' in page.inner_text('#note')
    assert 'One frame in 10 of 4,000 is here; captions.jsonl has all.' in page.inner_text('#note')
    assert len(_rows(page)) == 100 and page.inner_text('#page') == '1 of 4'
    page.click('#later')
    assert len(_rows(page)) == 100 and page.inner_text('#page') == '2 of 4'
    page.fill('#words', 'mug 1250')
    assert page.inner_text('#found') == '1 captions in 1 frames'
    assert '(picture of 20:00.0)' in page.inner_text('#when')


def test_the_page_can_be_left_out(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(report=False))
    assert not (tmp_path / 'r/report.html').exists()


@pytest.mark.parametrize('at', [0, 1, 19])
def test_a_page_that_cannot_be_written_ends_the_run(at, tmp_path, bags, pixels, monkeypatch):
    add, calls = Report.add, []

    def fail(*words):
        calls.append(words)
        if len(calls) == at + 1:
            raise OSError(28, 'No space left on device')
        add(*words)
    monkeypatch.setattr(Report, 'add', fail)
    source = bags.write(tmp_path / 'in', bags.camera(20))
    with pytest.raises(OutputError, match='No space left on device; IN and .* are intact'):
        caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert [path.name for path in (tmp_path / 'r').iterdir()] == ['captions.jsonl.part']


def test_a_page_without_captions_opens(opened, tmp_path):
    with Report(tmp_path / 'none.html', 'none', ['/a'], 0, 0, 0):
        pass
    assert _rows(opened(tmp_path / 'none.html')) == []


def test_pictures_are_small_and_the_rows_are_json(tmp_path):
    with Report(tmp_path / 'one.html', 'one', ['/a'], 0, 10 ** 9, 1) as made:
        made.add('/a', 5, RECORD, [None], np.zeros((3000, 4000, 3), np.uint8))
    text = (tmp_path / 'one.html').read_text('utf-8')
    (found,) = re.findall(r'<script id="recording"[^>]*>(.*?)</script>', text, re.DOTALL)
    (row,) = json.loads(found)['frames']
    assert row['size'] == [4000, 3000] and len(row['picture']) < 65_000
