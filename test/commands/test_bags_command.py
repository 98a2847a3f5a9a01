# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bags`` as a process, with real Ray workers, one of which is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from caption_ros.scenes import TabletopStream

pytest.importorskip('ray')

BAGS, FRAMES, START_NS = 7, 12, 1_480_227_350_196_105_142
TYPES = get_typestore(Stores.LATEST)
CORES = sorted(os.sched_getaffinity(0))


def _write(path, seed):
    kind = 'sensor_msgs/msg/Image'
    stream = TabletopStream(seed, 320, 240)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection('/image', kind, typestore=TYPES)
        for i in range(FRAMES):
            rgb, now_ns = stream.frame(i).rgb, START_NS + i * 10 ** 8
            header = TYPES.types['std_msgs/msg/Header'](TYPES.types['builtin_interfaces/msg/Time'](
                now_ns // 10 ** 9, now_ns % 10 ** 9), 'camera')
            message = TYPES.types[kind](header, 240, 320, 'rgb8', 0, rgb.strides[0],
                                        np.frombuffer(rgb.tobytes(), np.uint8))
            writer.write(topic, now_ns, TYPES.serialize_cdr(message, kind))
    return stream.layout.sentence


@pytest.fixture(scope='module')
def fleet(tmp_path_factory):
    """Recordings, what their scenes are, and a file that is none."""
    root = tmp_path_factory.mktemp('fleet')
    said = {str(root / f'in/drive_{i}'): _write(root / f'in/drive_{i}', i) for i in range(BAGS)}
    (root / 'in/broken.mcap').write_bytes(b'junk')
    return root, said


def _command(*words):
    return [sys.executable, '-m', 'caption_ros.cli', *map(str, words)]


def _ancestors(pid):
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
        except OSError:
            return


def _children(pid):
    return [int(path.name) for path in Path('/proc').glob('[0-9]*')
            if pid in _ancestors(int(path.name))]


def _is_worker(pid):
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes().startswith(b'ray::CaptionWorker')
    except OSError:
        return False


def _listeners(pids):
    """Return the addresses, in the hexadecimal of /proc, at which processes listen."""
    sockets = set()
    for pid in pids:
        try:
            links = [os.readlink(path) for path in Path(f'/proc/{pid}/fd').iterdir()]
        except OSError:
            continue
        sockets |= {link[8:-1] for link in links if link.startswith('socket:[')}
    lines = [line.split() for name in ('tcp', 'tcp6')
             for line in Path(f'/proc/net/{name}').read_text().splitlines()[1:]]
    return {fields[1].split(':')[0] for fields in lines
            if fields[3] == '0A' and fields[9] in sockets}


def _cores(pid):
    cores = set()
    for path in Path(f'/proc/{pid}/task').glob('*/status'):
        with contextlib.suppress(OSError):  # a thread that has ended since it was listed
            cores.add(re.search(r'Cpus_allowed_list:\s*(\S+)', path.read_text())[1])
    return cores


@pytest.mark.skipif(len(CORES) < 2, reason='two workers are pinned to a core each')
def test_a_killed_worker_loses_nothing_and_a_second_run_does_nothing(fleet):
    root, said = fleet
    out = root / 'out'
    words = ('bags', root / 'in', '--out', out, '--workers', 2, '--pin')
    process = subprocess.Popen(_command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    try:
        deadline_s = time.monotonic() + 300
        while not list(out.glob('*/captions.parquet')):
            assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
            time.sleep(0.01)
        # Not the part of the index, which a worker killed before it could tell leaves to be made
        # anew, but what costs time.
        finished = {path: path.stat().st_mtime_ns for path in (
            part.with_name('captions.jsonl') for part in out.glob('*/captions.parquet'))}
        children = _children(process.pid)
        workers = [pid for pid in children if _is_worker(pid)]
        os.kill(workers[0], signal.SIGKILL)
        assert len(finished) < BAGS - 2, 'killed too late to tell'
        # The other one: on a core of its own, and all of Ray talks on loopback only.
        assert _cores(workers[1]) < {str(core) for core in CORES}
        assert len(_cores(workers[1])) == 1
        assert _listeners(children) <= {'0100007F', '0000000000000000FFFF00000100007F',
                                        '00000000000000000000000001000000'}
        told, err = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 1
    assert told.startswith(f'{BAGS + 1} recordings: {BAGS} captioned ({BAGS * FRAMES} frames), 0 '
                           'finished before, 1 failed, 1 workers died; ')
    assert re.search(r'its worker died; too little memory, or it was killed; it is tried|'
                     r'a worker died while it loaded the model; another takes', err)
    assert f'failed: {root}/in/broken.mcap cannot be read as a recording' in err
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())
    (failed,) = [json.loads(line) for line in (out / 'failed.jsonl').open()]
    assert failed['name'] == 'broken.mcap'

    import pyarrow.parquet as pq
    rows = pq.read_table(out / 'index.parquet').to_pylist()
    stamps = {bag: [row['stamp'].value for row in rows if row['bag'] == bag] for bag in said}
    assert stamps == {bag: [START_NS + i * 10 ** 8 for i in range(FRAMES)] for bag in said}
    right = sum(row['text'] == said[row['bag']] for row in rows)
    assert right > 0.8 * len(rows) and len(rows) == BAGS * FRAMES

    (root / 'in/broken.mcap').unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.suffix}
    again = subprocess.run(_command(*words), capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, '')
    assert again.stdout.startswith(f'{BAGS} recordings: 0 captioned (0 frames), {BAGS} finished')
    after = {path: path.stat().st_mtime_ns for path in out.rglob('*') if path.suffix}
    before.pop(out / 'failed.jsonl')
    assert after == before

    query = said[str(root / 'in/drive_0')]
    found = subprocess.run(_command('search', query, '--index', out), capture_output=True,
                           text=True)
    assert found.returncode == 0
    assert found.stdout.splitlines()[0].startswith(f'{root}/in/drive_0 /image 1480227350.')


@pytest.mark.parametrize(('words', 'status', 'said'), [
    (['{root}/none'], 2, 'none holds no recording; give a folder'),
    (['{root}/in', '--device', 'cuda'], 2, 'device cuda needs GPUs and Ray hides them'),
    (['{root}/in', '--workers', '0'], 2, 'workers must be 1 to 100000, got 0'),
    (['{root}/in', '--gpus-per-worker', '1'], 2, 'there is no room for a worker that wants 1 CPU '
     'cores and 1 GPUs: Ray has '),
    (['{root}/in', '--ray', '127.0.0.1:1'], 2, 'Ray cannot be used on 127.0.0.1:1: '),
    (['{root}/in', '--ray', 'local'], 2, 'Ray cannot be used on local: '),
    (['{root}/in', '--model', 'none_such'], 2, "model 'none_such'"),
])
def test_bad_input_is_one_line(fleet, tmp_path, words, status, said):
    root, _ = fleet
    words = [word.format(root=root) for word in words]
    done = subprocess.run(_command('bags', *words, '--out', tmp_path / 'out'), timeout=300,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, ''), done.stderr
    assert done.stderr.startswith('caption-ros: ') and said in done.stderr
    assert done.stderr.count('\n') == 1
    assert not list(tmp_path.glob('out/*/captions*'))
