# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bag`` as a process, with the shipped model, also when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from caption_ros import cli
from caption_ros.bags.files import Skipped
from caption_ros.bags.job import Summary
from caption_ros.bags.topics import Plan
from caption_ros.commands.bag import _print
from caption_ros.scenes import TabletopStream

FRAMES = 30


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    types = get_typestore(Stores.LATEST)
    kind = 'sensor_msgs/msg/Image'
    path = tmp_path_factory.mktemp('bag') / 'in'
    stream = TabletopStream(5, 320, 240)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = [writer.add_connection(name, kind, typestore=types)
                  for name in ('/image', '/mask')]
        for i in range(FRAMES):
            frame = stream.frame(i)
            stamp = types.types['builtin_interfaces/msg/Time'](9, i)
            header = types.types['std_msgs/msg/Header'](stamp, 'camera')
            for topic, pixels, encoding in zip(topics, (frame.rgb, frame.labels),
                                               ('rgb8', 'mono8')):
                message = types.types[kind](header, 240, 320, encoding, 0, pixels.strides[0],
                                            np.frombuffer(pixels.tobytes(), np.uint8))
                writer.write(topic, 9 * 10 ** 9 + i, types.serialize_cdr(message, kind))
    return path, stream.layout


def _start(*words):
    return subprocess.Popen([sys.executable, '-m', 'caption_ros.cli', 'bag', *map(str, words)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(*words):
    process = _start(*words)
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def test_a_killed_run_goes_on_and_says_what_the_scene_is(source, tmp_path):
    path, layout = source
    out = tmp_path / 'r/o.mcap'
    process, part = _start(path, out, '--describe', 'both'), tmp_path / 'r/captions.jsonl.part'
    deadline_s = time.monotonic() + 400
    while not (part.exists() and part.read_bytes().count(b'\n') > 3):
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    for name in ('dtype', 'device'):
        other = {'dtype': 'float32', 'device': 'cpu'}[name]
        status, told, err = _run(path, out, '--describe', 'both', '--resume', f'--{name}', other)
        assert (status, told) == (2, '') and f"{name} 'auto', got '{other}'" in err
    status, told, err = _run(path, out, '--describe', 'both', '--resume')
    assert status == 0, err
    assert f'{FRAMES} frames of /image with masks of /mask captioned (' in told
    records = [json.loads(line) for line in (tmp_path / 'r/captions.jsonl').open()]
    assert [record['received_ns'] for record in records] == [9 * 10 ** 9 + i
                                                            for i in range(FRAMES)]
    said = {record['captions'][0]['text'] for record in records}
    assert layout.sentence in said
    assert _run(path, out, '--resume')[:2] == (
        0, f'{out} is there and no run of it is unfinished: nothing to do (--force starts over)\n')


def test_bad_input_is_one_line_and_status_2(source, tmp_path):
    status, told, err = _run(tmp_path, tmp_path.with_name('o.mcap'))
    assert (status, told) == (2, '') and err.startswith('caption-ros: ') and err.count('\n') == 1
    assert 'has no metadata.yaml; give a rosbag2 folder' in err
    status, told, err = _run(source[0], tmp_path / 'o.mcap', '--topic', '/nose')
    assert (status, told) == (2, '') and 'it has /image, /mask' in err


def test_a_terminal_obeys_nothing_that_was_recorded(capsys):
    odd = '/new\nline\x1b[31m'
    summary = Summary(Plan((odd,)), skipped={Skipped(odd, 5, None, "encoding '\x07'"): None},
                      skipped_count=1)
    _print(summary)
    assert capsys.readouterr().err.splitlines() == [
        "caption-ros: skipped: /new?line?[31m, received 0.000000005: encoding '?'",
        'caption-ros: 0 frames of /new?line?[31m captioned, 1 skipped: nothing was captioned, so '
        'OUT was not made']


@pytest.mark.parametrize('words', [['bag', '{}', 'out.mcap'], ['replay', '{}']])
def test_a_recording_without_permission_is_one_line_too(words, tmp_path, capsys, monkeypatch):
    (tmp_path / 'in.mcap').write_bytes(b'x')
    monkeypatch.setattr(os, 'access', lambda *_: False)
    monkeypatch.setattr(sys, 'argv', ['caption-ros', *(word.format(tmp_path / 'in.mcap')
                                                       for word in words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count('\n') == 1
    assert err.startswith(f'caption-ros: {tmp_path}/in.mcap cannot be read as a recording: ')
