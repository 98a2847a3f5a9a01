# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cues written out."""

from caption_ros.bags.subtitles import Subtitles

S = 10 ** 9


def _write(tmp_path, lines, end_s, several=False):
    with Subtitles(tmp_path / 'a.vtt', tmp_path / 'a.srt', 7 * S, several=several) as subtitles:
        for topic, second, text in lines:
            subtitles.add(topic, round((7 + second) * S), text)
        subtitles.end(round((7 + end_s) * S))
    return (tmp_path / 'a.vtt').read_text(), (tmp_path / 'a.srt').read_text()


def test_a_caption_stays_until_the_next_and_equal_ones_are_one_cue(tmp_path):
    vtt, srt = _write(tmp_path, [('/a', 0.5, 'a <red> mug'), ('/a', 1, 'a <red> mug'),
                                 ('/a', 3723.004, 'a\nbox')], 3723.5)
    assert vtt == ('WEBVTT\n\n00:00:00.500 --> 01:02:03.004\na &lt;red&gt; mug\n\n'
                   '01:02:03.004 --> 01:02:04.004\na box\n')
    assert srt == ('1\n00:00:00,500 --> 01:02:03,004\na <red> mug\n\n'
                   '2\n01:02:03,004 --> 01:02:04,004\na box\n\n')


def test_several_topics_share_the_screen(tmp_path):
    _, srt = _write(tmp_path, [('/a', 0, 'mug'), ('/b', 0, 'wall'), ('/a', 1, 'box')], 5, True)
    assert srt == ('1\n00:00:00,000 --> 00:00:01,000\n/a: mug\n/b: wall\n\n'
                   '2\n00:00:01,000 --> 00:00:05,000\n/a: box\n/b: wall\n\n')


def test_no_caption_no_cue(tmp_path):
    assert _write(tmp_path, [], 5) == ('WEBVTT\n', '')
