# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The bar of long work: how much, how fast, how long still, and what was left out."""

import io
import re

import pytest
from rich.console import Console

from caption_ros.commands import progress


@pytest.mark.parametrize('is_terminal', [True, False])
def test_a_terminal_sees_rate_estimate_and_what_is_left_out_and_a_pipe_nothing(
        is_terminal, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(progress, 'Console', lambda stderr: Console(
        file=shown, force_terminal=is_terminal, width=120))
    with progress.progress_bar('images', 40) as advance:
        for done in (10, 20, 30):
            advance(done, f'{done - 2} captioned, 2 left out')
    if is_terminal:
        last = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', shown.getvalue()).strip().splitlines()[-1]
        assert re.search(r'images .* 30/40 [\d,]+\.\d/s 0:00:0\d 28 captioned, 2 left out', last)
    else:
        assert shown.getvalue().strip() == ''
