# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captioners as Ray actors, and the recordings handed to them."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caption_ros.bags.files import one_line
from caption_ros.captioner import Captioner
from caption_ros.errors import CaptionRosError, OptionError, OutputError
from caption_ros.fleet.work import Outcome, Task, caption_source

if TYPE_CHECKING:
    from caption_ros.fleet.run import FleetOptions, FleetSummary

_MOST_DEATHS_LOADING = 3  # in a row: then there is no room for the model
_CONNECT_S = 5.0
_STORE_BYTES = 80 << 20  # Ray's least; only settings and counts go through it
# What a call ends with when its worker is gone; a worker killed for memory is no RayActorError.
_DEATHS = ('RayActorError', 'OutOfMemoryError', 'NodeDiedError', 'WorkerCrashedError')


class CaptionWorker:
    """A captioner in a process of its own, made an actor by ``run_tasks``.

    Args:
        load: Loads the model.
        cores: CPU cores to stay on; empty is all.
    """

    def __init__(self, load: Callable[[], Captioner], cores: tuple[int, ...]) -> None:
        for thread in os.listdir('/proc/self/task') if cores else ():
            os.sched_setaffinity(int(thread), cores)
        self._load = load
        self._captioner: Captioner | None = None

    def load(self) -> None:
        """Load the model."""
        self._captioner = self._load()

    def caption(self, task: Task) -> Outcome:
        """Caption a recording."""
        return caption_source(task, self._loaded)

    def _loaded(self) -> Captioner:
        assert self._captioner is not None
        return self._captioner


def run_tasks(tasks: list[Task], load: Callable[[], Captioner], fleet: FleetOptions,
              summary: FleetSummary, say: Callable[[str], None],
              progress: Callable[..., None]) -> None:
    """Caption recordings; see caption_fleet.

    Args:
        tasks: The recordings, largest first: then no worker is left with a long one at the end.
        load: Loads the model.
        fleet: Who works.
        summary: Takes what became of them.
        say: Takes what went wrong.
        progress: Takes the count of recordings ended and a note.
    """
    with _ray(fleet):
        count = _room(fleet, len(tasks), say)
        _Dispatch(tasks, load, fleet, summary, say, progress).run(count)


class _Dispatch:
    """Hands recordings to workers, replaces workers that die, tries again what failed."""

    def __init__(self, tasks: list[Task], load: Callable[[], Captioner], fleet: FleetOptions,
                 summary: FleetSummary, say: Callable[[str], None],
                 progress: Callable[..., None]) -> None:
        import ray
        self._ray = ray
        self._deaths = tuple(getattr(ray.exceptions, name) for name in _DEATHS
                             if hasattr(ray.exceptions, name))  # older ones of Ray lack some
        self._left = deque((task, 0) for task in tasks)
        self._load = load
        self._fleet = fleet
        self._summary = summary
        self._say = say
        self._progress = progress
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, tuple[int, Task | None, int]] = {}
        self._deaths_loading = 0
        self._began_s = 0.0

    def run(self, workers: int) -> None:
        """Work until nothing is left."""
        for slot in range(workers):
            self._start(slot)
        try:
            while self._left or any(task for _, task, _ in self._running.values()):
                ready, _ = self._ray.wait(list(self._running), num_returns=1)
                self._take(ready[0])
        finally:
            for actor in self._actors.values():
                self._ray.kill(actor)
        self._summary.seconds = time.monotonic() - self._began_s

    def _start(self, slot: int) -> None:
        fleet, cores = self._fleet, ()
        if fleet.pin:
            first = slot * fleet.cpus_per_worker
            cores = tuple(_cores()[first:first + fleet.cpus_per_worker])
        actor = self._ray.remote(CaptionWorker).options(
            num_cpus=fleet.cpus_per_worker, num_gpus=fleet.gpus_per_worker, max_restarts=0,
        ).remote(self._load, cores)
        self._actors[slot] = actor
        self._running[actor.load.remote()] = (slot, None, 0)

    def _take(self, ended: Any) -> None:
        slot, task, attempt = self._running.pop(ended)
        try:
            outcome = self._ray.get(ended)
        except self._deaths as error:
            self._bury(slot, task, attempt, error)
            return
        except self._ray.exceptions.RayTaskError as error:
            if task is None and isinstance(error.cause, CaptionRosError):
                raise error.cause from None
            if task is None:
                raise OutputError('the model cannot be loaded by a worker: '
                                  f'{one_line(error.cause)}') from error
            outcome = Outcome(error=one_line(error.cause), is_final=False)
        if task is None:
            self._began_s = self._began_s or time.monotonic()
            self._deaths_loading = 0
        else:
            self._settle(task, attempt, outcome)
        if self._left:
            task, attempt = self._left.popleft()
            self._running[self._actors[slot].caption.remote(task)] = (slot, task, attempt)

    def _bury(self, slot: int, task: Task | None, attempt: int, error: Exception) -> None:
        """Put another worker in the place of a dead one; its finished frames are on disk."""
        self._summary.deaths += 1
        if task is None:
            self._deaths_loading += 1
            if self._deaths_loading >= _MOST_DEATHS_LOADING:
                raise OutputError(f'{_MOST_DEATHS_LOADING} workers in a row died while they '
                                  'loaded the model: give each more memory, or fewer workers'
                                  ) from error
            self._say('a worker died while it loaded the model; another takes its place')
        else:
            outcome = Outcome(error='its worker died; too little memory, or it was killed',
                              is_final=False)
            self._settle(task, attempt, outcome)
        if self._left:
            self._start(slot)

    def _settle(self, task: Task, attempt: int, outcome: Outcome) -> None:
        label = task.source.label
        text = outcome.error if label in outcome.error else f'{label}: {outcome.error}'
        if outcome.error and not outcome.is_final and attempt < self._fleet.retries:
            self._say(f'{text}; it is tried again')
            self._left.append((task, attempt + 1))
            return
        if outcome.error:
            self._say(f'failed: {text}')
        (self._summary.failed if outcome.error else self._summary.done)[label] = outcome
        failed = len(self._summary.failed)
        captions = sum(one.captions for one in self._summary.done.values())
        self._progress(len(self._summary.done) + failed,
                       f'{captions} captions' + (f', {failed} failed' if failed else ''))


@contextmanager
def _ray(fleet: FleetOptions) -> Any:
    """Connect to the cluster, or run Ray on this machine and for this process only."""
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'  # nothing is reported to anybody
    if fleet.ray is None:
        # Ray listens on all interfaces unless it is told that there are no other machines, and
        # runs for whoever reaches it what they send; so other users of this machine need a key.
        os.environ['RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER'] = '0'
        os.environ['RAY_AUTH_MODE'] = 'token'
        os.environ.setdefault('RAY_AUTH_TOKEN', secrets.token_hex(32))
    else:
        _check_address(fleet.ray)
        # Ray looks for the cluster's key after it has asked the cluster for the first time.
        if 'RAY_AUTH_TOKEN' in os.environ or Path('~/.ray/auth_token').expanduser().is_file():
            os.environ.setdefault('RAY_AUTH_MODE', 'token')
    import ray
    quiet: dict[str, Any] = {'logging_level': 'ERROR', 'log_to_driver': False}
    try:
        if fleet.ray is None:
            cores = max(len(_cores()), (fleet.workers or 1) * fleet.cpus_per_worker)
            ray.init('local', num_cpus=cores, include_dashboard=False,
                     object_store_memory=_STORE_BYTES, **quiet)
            if not ray.util.get_node_ip_address().startswith('127.'):
                raise OptionError('Ray was imported before and would listen on the network; '
                                  'caption the fleet in a process of its own')
        else:
            ray.init(fleet.ray, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = 'this machine' if fleet.ray is None else fleet.ray
        raise OptionError(f'Ray cannot be used on {where}: {one_line(error)}') from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray says why a worker died
            yield
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address where nobody answers; Ray itself waits minutes for one."""
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if address == 'auto':
        return
    try:
        socket.create_connection((host.strip('[]'), int(port)), _CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise OptionError(f'Ray cannot be used on {address}: {one_line(error)}; give auto, '
                          'HOST:6379 or ray://HOST:10001') from error


def _room(fleet: FleetOptions, tasks: int, say: Callable[[str], None]) -> int:
    """Return how many workers to start.

    Raises:
        OptionError: If there is no room for one.
    """
    import ray
    has = ray.cluster_resources()
    cpus, gpus = int(has.get('CPU', 0)), has.get('GPU', 0.0)
    room = cpus // fleet.cpus_per_worker
    if fleet.gpus_per_worker:
        a_gpu = int(1 / fleet.gpus_per_worker + 1e-9)
        room = min(room, int(gpus) * a_gpu if a_gpu else int(gpus // fleet.gpus_per_worker))
    wants = f'{fleet.cpus_per_worker} CPU cores and {fleet.gpus_per_worker:g} GPUs'
    if fleet.workers is None and not room:
        raise OptionError(f'there is no room for a worker that wants {wants}: Ray has {cpus} '
                          f'cores and {gpus:g} GPUs; give workers less')
    count = min(fleet.workers or room, tasks)
    if count > room:
        if fleet.ray is None:
            raise OptionError(f'{count} workers want {wants} each and this machine has {cpus} '
                              f'cores and {gpus:g} GPUs; give fewer workers')
        say(f'{count} workers want {wants} each and the cluster has {cpus} cores and {gpus:g} '
            f'GPUs now: {count - room} wait for room')
    if fleet.pin and count * fleet.cpus_per_worker > len(_cores()):
        raise OptionError(f'{count} workers cannot be pinned to {len(_cores())} cores; give fewer')
    return count


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if sys.platform == 'linux' else list(
        range(os.cpu_count() or 1))
