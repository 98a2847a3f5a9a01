# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import mmap
import os
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

if not Path('/proc/self/task').is_dir():
    pytest.skip('reads the /proc of Linux', allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parents[2] / 'bench'))

from process_load import Sample, memory_growth, sample  # noqa: E402

FLAT = Sample(0.0, 100.0, 80.0, 180.0, 0.0, {})


def _minutes(*rss_mib):
    """Return a look each second, the memory a different one in each minute."""
    return [replace(FLAT, at_s=float(i), rss_mib=rss_mib[min(i // 60, len(rss_mib) - 1)])
            for i in range(60 * len(rss_mib) + 1)]


@pytest.mark.parametrize('rss_mib, growth', [
    pytest.param((50, 100, 100, 100, 100), 0.0, id='the first minute warms up'),
    pytest.param((50, 100, 500, 300, 102), 0.02, id='second to last'),
    pytest.param((100, 100, 100, 90), -0.1, id='less'),
])
def test_memory_grows_from_the_second_minute_to_the_last(rss_mib, growth):
    assert memory_growth(_minutes(*rss_mib)) == pytest.approx(growth)


def test_memory_of_its_own_is_told_apart():
    looks = [replace(look, own_mib=100.0) for look in _minutes(50, 100, 150)]
    assert memory_growth(looks) == pytest.approx(0.5)
    assert memory_growth(looks, of='own_mib') == 0


def test_a_short_run_has_quarters_for_minutes():
    looks = [replace(FLAT, at_s=float(i), rss_mib=[10, 100, 100, 150, 150][i // 10])
             for i in range(41)]
    assert memory_growth(looks) == pytest.approx(0.5)


def test_a_thread_is_told_by_its_name_and_its_time_is_part_of_all():
    stop = threading.Event()

    def work():
        Path(f'/proc/self/task/{threading.get_native_id()}/comm').write_text('busy (1) x')
        while not stop.is_set():
            sum(range(1000))
    thread = threading.Thread(target=work)
    folder = Path(f'/proc/{os.getpid()}')
    before = sample(folder, 1.0)
    thread.start()
    deadline_s = time.monotonic() + 30
    try:
        while (sample(folder, 2.0).thread_cpu_s.get('busy (1) x', 0.0) < 0.1
               and time.monotonic() < deadline_s):
            time.sleep(0.01)
        after = sample(folder, 2.0)
    finally:
        stop.set()
        thread.join()
    assert before.at_s == 1.0 and 'busy (1) x' not in before.thread_cpu_s
    assert 0.1 <= after.thread_cpu_s['busy (1) x'] <= after.cpu_s - before.cpu_s + 0.1
    assert 10 < after.own_mib < after.rss_mib < 100_000


def test_what_has_ended_is_no_process(tmp_path):
    with pytest.raises(FileNotFoundError):
        sample(tmp_path / 'gone', 0.0)


def test_shared_memory_counts_whole_whether_it_was_looked_at_or_not():
    folder, size = Path(f'/proc/{os.getpid()}'), 32 << 20
    shared = SharedMemory(create=True, size=size)
    try:
        shared.buf[:size] = bytes(size)  # allocated, and looked at
        looked = sample(folder, 0.0)
        with mmap.mmap(shared._fd, size) as again:  # mapped once more: no page of it looked at
            mapped = sample(folder, 0.0)
            assert again[:size:4096].count(0) == size // 4096
            looked_again = sample(folder, 0.0)
    finally:
        shared.close()
        shared.unlink()
    gone = sample(folder, 0.0)
    assert looked_again.rss_mib - mapped.rss_mib == pytest.approx(32, abs=4)
    assert looked_again.held_mib - mapped.held_mib == pytest.approx(0, abs=4)
    assert mapped.held_mib - looked.held_mib == pytest.approx(0, abs=4)
    assert looked.held_mib - gone.held_mib == pytest.approx(32, abs=4)
