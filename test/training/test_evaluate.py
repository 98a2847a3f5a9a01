# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import sys
from unittest.mock import Mock

import pytest

from caption_ros.errors import CaptionRosError
from caption_ros.training.evaluate import evaluate_tabletop


def test_that_scores_are_not_installed_is_told_before_the_first_scene(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocoevalcap.bleu.bleu', None)
    captioner = Mock(spec=[])
    with pytest.raises(CaptionRosError, match='need pycocoevalcap, which is not installed: pip'):
        evaluate_tabletop(captioner, scenes=1)
    assert not captioner.mock_calls
