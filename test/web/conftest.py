# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A browser, and pages to open in it."""

from __future__ import annotations

import shutil

import pytest
from webbench import HAS_ROS, TOPIC, Server


@pytest.fixture(scope='module')
def chromium():
    pytest.importorskip('gradio')
    sync_api = pytest.importorskip('playwright.sync_api')
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if found is None:
        pytest.skip('no chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def servers(chromium, tmp_path_factory):
    """An open page, and one that asks for a password; they start side by side."""
    folder = tmp_path_factory.mktemp('web')
    secret = folder / 'user'
    secret.write_text('robot:a long secret\n')
    both = (Server(*(['--image', TOPIC] if HAS_ROS else []), folder=folder),
            Server('--auth', f'@{secret}', folder=folder))
    try:
        yield tuple(server.wait() for server in both)
        for server in both:
            status, said = server.stop()
            assert status == 0 and 'Traceback' not in said, said
            assert 'a long secret' not in said
        called = (folder / 'called').read_text().splitlines()
        assert called and [who for who in called if '127.0.0.1' not in who] == []
    finally:
        for server in both:
            server.process.kill()
            server.process.communicate()


@pytest.fixture
def opened(chromium, servers):
    """Opens the page; at the end nothing may have gone wrong, and nobody else been asked."""
    wrong, asked, contexts = [], [], []

    def open_page(width=1100, server=0):
        context = chromium.new_context(viewport={'width': width, 'height': 1400},
                                       device_scale_factor=0.5)  # software draws slowly
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('request', lambda request: asked.append(request.url))
        page.goto(servers[server].url)
        return page
    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in wrong if '400 (Bad Request)' not in text] == []  # a wrong password
    own = tuple(server.url for server in servers)
    assert [url for url in asked if not url.startswith((*own, 'data:', 'blob:'))] == []
