# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which images wait for masks, for how long, and in which order they go on, by a clock at hand."""

from types import SimpleNamespace

import pytest

from caption_ros.health import Counters
from caption_ros.mailbox import Mailbox
from caption_ros.ros import intake as module
from caption_ros.ros.intake import Intake
from caption_ros.ros.parameters import NODE_PARAMETERS, NodeParameters

STEP_S = 0.01


def parameters(**changes):
    return NodeParameters.from_values(
        {spec.name: spec.default for spec in NODE_PARAMETERS} | changes)


def message(at_s):
    stamp = SimpleNamespace(sec=1000 + int(at_s), nanosec=round(at_s % 1 * 1e9))
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), data=b'x')


@pytest.fixture
def run(monkeypatch):
    """Return a function that plays camera and segmenter; it returns what went on, in order."""
    def run(seconds, *, image_s, mask_s=None, mask_late_s=0.1, until_s=1e9):
        now = [0.0]
        monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: now[0]))
        mailbox, went = Mailbox(), []
        intake = Intake(mailbox, Counters(), lambda *text: pytest.fail(str(text)))
        intake.start(parameters(), 1)
        for i in range(1, round(seconds / STEP_S)):
            now[0] = i * STEP_S
            if i % 25 == 0:
                intake.set_mask_publishers(1 if now[0] < until_s else 0)
                intake.expire()
            if i % round(image_s / STEP_S) == 5:
                intake.on_image(message(now[0]))
            late = round(mask_late_s / STEP_S)
            if mask_s and now[0] < until_s and (i - late) % round(mask_s / STEP_S) == 5:
                intake.on_mask(message(now[0] - mask_late_s))
            went += [(now[0], frame) for frame in mailbox.take_all(0.0)]
        return went, intake.counts()
    return run


def arrivals(went):
    return [frame.arrived_s for _, frame in went]


@pytest.mark.parametrize('image_s', [0.1, 1.5])
@pytest.mark.parametrize('until_s', [1.1, 1e9])
def test_no_image_goes_on_after_a_newer_one(run, image_s, until_s):
    went, _ = run(12, image_s=image_s, until_s=until_s)
    assert arrivals(went) == sorted(set(arrivals(went)))
    assert went and not any(frame.mask for _, frame in went)


def test_when_the_segmenter_goes_the_newest_image_goes_on_at_once(run):
    went, counts = run(4, image_s=0.1, mask_s=0.1, until_s=2.0)
    gaps = [later - sooner for (sooner, _), (later, _) in zip(went, went[1:])]
    assert max(gaps) < 0.5 and counts['images without mask'] >= 1


@pytest.mark.parametrize('mask_s, late_s', [(0.1, 0.35), (1.0, 0.5), (3.0, 0.3), (6.0, 1.5)])
def test_masks_are_paired_however_seldom_they_come(run, mask_s, late_s):
    went, counts = run(40, image_s=0.1, mask_s=mask_s, mask_late_s=late_s)
    masked = [frame for _, frame in went if frame.mask]
    assert len(masked) == counts['pairs'] >= 0.9 * (40 / mask_s - 2)
    assert all(frame.mask.header.stamp == frame.header.stamp for frame in masked)


def test_a_camera_slower_than_the_timeout_gets_its_masks(run):
    went, counts = run(40, image_s=3.0, mask_s=3.0)
    assert counts['pairs'] >= 12 and sum(frame.mask is None for _, frame in went) <= 1


def test_a_segmenter_that_falls_silent_is_waited_for_twice_its_own_time(run):
    went, _ = run(20, image_s=0.1, mask_s=3.0, until_s=7.0)
    alone = [at_s for at_s, frame in went if frame.mask is None and at_s > 7.0]
    assert alone and min(alone) < 7.6  # its publisher has gone


def test_images_that_wait_outlive_a_change_of_the_timeout(run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    intake = Intake(Mailbox(), Counters(), print)
    intake.start(parameters(describe='regions'), 1)
    for now[0] in (0.1, 0.2, 0.3):
        intake.on_image(message(now[0]))
    intake.apply(parameters(describe='regions', mask_timeout_s=3.0))
    intake.on_mask(message(0.2))
    assert intake.counts()['pairs'] == 1
    now[0] = 20.0
    intake.expire()
    assert intake.counts()['images without mask'] == 2
