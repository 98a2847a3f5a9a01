# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A run killed at any moment goes on and ends as if nothing had been."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from slow_run import run

KILLS, FRAMES, FRAME_S = 10, 30, 0.01
SIDE_FILES = ('captions.jsonl', 'captions.vtt', 'captions.srt', 'report.html')


def _start(source, out):
    process = subprocess.Popen([sys.executable, Path(__file__).with_name('slow_run.py'), source,
                                out, str(FRAME_S)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'ready\n'
    return process


def test_ten_runs_killed_at_random_moments_end_with_the_same_captions(tmp_path, bags):
    seed = int(os.environ.get('CAPTION_ROS_SEED') or random.randrange(10 ** 9))
    print(f'CAPTION_ROS_SEED={seed}')
    draw = random.Random(seed)
    source = bags.write(tmp_path / 'in', bags.camera(FRAMES, masks=True))
    whole = tmp_path / 'whole/o.mcap'
    process, began_s = _start(source, whole), time.monotonic()
    assert process.wait(100) == 0
    took_s = time.monotonic() - began_s
    wanted = [(tmp_path / 'whole' / name).read_bytes() for name in SIDE_FILES]
    keys = [json.loads(line)['received_ns'] for line in wanted[0].splitlines()]
    assert keys == [bags.start_ns + i * bags.step_ns for i in range(FRAMES)]
    stages = set()
    for number in range(KILLS):
        out = tmp_path / f'{number}/o.mcap'
        moment_s = draw.uniform(number, number + 1) / KILLS * took_s
        process = _start(source, out)
        time.sleep(moment_s)
        process.kill()
        process.communicate()
        part = out.with_name('captions.jsonl.part')
        stages.add((part.exists(), out.exists()))
        assert part.exists() or out.exists() or not list(tmp_path.glob(f'{number}/*'))
        run(source, out, 0)
        print(f'killed after {moment_s:.3f} s of {took_s:.3f} s')
        assert [out.with_name(name).read_bytes() for name in SIDE_FILES] == wanted
        assert bags.read(out) == bags.read(whole)
        assert sorted(path.name for path in out.parent.iterdir()) == sorted(
            [*SIDE_FILES, out.name])
    assert (True, False) in stages, 'every run was over before it was killed, or had not begun'


def test_killed_between_any_two_changes_of_the_disk_also_while_going_on(tmp_path, bags):
    source = bags.write(tmp_path / 'in', bags.camera(3, masks=True), 'mcap')
    subprocess.run([sys.executable, Path(__file__).with_name('slow_run.py'), source, tmp_path],
                   check=True)

    def results(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
                if path.is_file()}
    whole, killed = tmp_path / 'whole', list(tmp_path.glob('[0-9]*'))
    assert len(killed) > 15 and len(results(whole)) == len(SIDE_FILES) + 2
    assert all(results(folder) == results(whole) for folder in killed)
