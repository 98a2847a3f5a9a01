# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recording played over real DDS, by a process of its own, into the live node."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress

import numpy as np
import pytest
from nodebench import TIMEOUT_S, halves, picture, wait_for
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_srvs.srv import Trigger

from caption_ros.bags.recording import Recording
from caption_ros.cli import main
from caption_ros.errors import OptionError, RecordingError
from caption_ros.ros import replay
from caption_ros.ros.keyboard import UP, keys
from caption_ros.ros.layout import installed_layout, recorded_layout
from caption_ros.ros.replay import Replay, ReplayOptions
from caption_ros.ros.replay_topics import message_type

START_NS = 1_480_227_350_196_105_142
STEP_NS, STAMP_GAP_NS, FRAMES, RATE = 100_000_000, 5_000_000, 40, 4.0
TYPES = get_typestore(Stores.LATEST)
# rclpy's warning, and the line of its code that it is of.
DROPPED = re.compile(r'.*RuntimeWarning: .*client will not receive response.*\n  .*\n')
_FOREVER = QosTime(9223372036, 854775807)


def qos(reliability='BEST_EFFORT', durability='VOLATILE', depth=5):
    return Qos(QosHistory.KEEP_LAST, depth, QosReliability[reliability],
               QosDurability[durability], _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER,
               False)


def image(pixels, stamp_ns):
    kind = 'sensor_msgs/msg/Image'
    header = TYPES.types['std_msgs/msg/Header'](TYPES.types['builtin_interfaces/msg/Time'](
        stamp_ns // 10 ** 9, stamp_ns % 10 ** 9), 'camera')
    message = TYPES.types[kind](
        header, *pixels.shape[:2], 'rgb8' if pixels.ndim == 3 else 'mono8', 0, pixels.strides[0],
        np.frombuffer(pixels.tobytes(), np.uint8))
    return bytes(TYPES.serialize_cdr(message, kind))


def text(words):
    return bytes(TYPES.serialize_cdr(TYPES.types['std_msgs/msg/String'](data=words),
                                     'std_msgs/msg/String'))


def write(path, topics, messages, hashes=None, definitions=None):
    """Write topics, name to (type, QoS profiles), and messages, (name, time, bytes)."""
    hashes, definitions = hashes or {}, definitions or {}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        made = {name: writer.add_connection(
            name, kind, msgdef=definitions.get(
                name, TYPES.generate_msgdef(kind, ros_version=2)[0]),
            rihs01=hashes.get(name, TYPES.hash_rihs01(kind)), offered_qos_profiles=profiles)
            for name, (kind, profiles) in topics.items()}
        for name, time_ns, raw in messages:
            writer.write(made[name], time_ns, raw)
    return path


@pytest.fixture(scope='module')
def camera(tmp_path_factory):
    topics = {'/cam/image': ('sensor_msgs/msg/Image', [qos()]),
              '/cam/mask': ('sensor_msgs/msg/Image', [qos()]),
              '/tf': ('tf2_msgs/msg/TFMessage', [])}
    messages = [('/tf', START_NS, b'\0\1\0\0\0\0\0\0')]
    for i in range(FRAMES):
        now_ns = START_NS + i * STEP_NS
        messages += [('/cam/image', now_ns, image(picture(), now_ns - STAMP_GAP_NS)),
                     ('/cam/mask', now_ns + 1000, image(halves(), now_ns - STAMP_GAP_NS))]
    return write(tmp_path_factory.mktemp('bag') / 'camera', topics, messages)


def nanoseconds(stamp):
    return stamp['sec'] * 10 ** 9 + stamp['nanosec']


class Player:
    """``caption-ros replay`` as a process, and a client of its services."""

    def __init__(self, bench, path, *words):
        from rcl_interfaces.srv import SetParametersAtomically
        from rosgraph_msgs.msg import Clock
        self.times = []  # steady seconds and seconds of the recording
        self._node = bench.client
        self._node.create_subscription(
            Clock, '/clock', lambda m: self.times.append(
                (time.monotonic(), m.clock.sec + m.clock.nanosec / 1e9)), 100)
        self._clients = {name: self._node.create_client(Trigger, f'/replay/{name}')
                         for name in ('pause', 'resume', 'toggle_paused')}
        self._set = self._node.create_client(SetParametersAtomically,
                                             '/replay/set_parameters_atomically')
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'caption_ros.cli', 'replay', str(path), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def _answer(self, client, request, patience_s):
        assert client.wait_for_service(4 * TIMEOUT_S), self._process.communicate()
        future = client.call_async(request)
        wait_for(future.done, patience_s, 'an answer')
        return future.result()

    def first_call(self, name):
        """Call more than once, as a service that has just come may not know who asks.

        An answer to a client that the service has not heard of within 0.1 s is dropped.
        """
        for _ in range(2):
            with suppress(AssertionError):
                return self.call(name, TIMEOUT_S / 3)
        return self.call(name)

    def call(self, name, patience_s=TIMEOUT_S):
        answer = self._answer(self._clients[name], Trigger.Request(), patience_s)
        assert answer.success
        return answer.message

    def set_rate(self, rate):
        from rcl_interfaces.srv import SetParametersAtomically
        return self._answer(self._set, SetParametersAtomically.Request(
            parameters=[Parameter('rate', value=rate).to_parameter_msg()]),
            TIMEOUT_S).result.successful

    def end(self):
        self._process.send_signal(signal.SIGINT)
        out, err = self._process.communicate(timeout=TIMEOUT_S)
        return self._process.returncode, out, err

    def kill(self):
        """End it, where it has not ended; with leave of the others, who else see it for long."""
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.end()
        self._process.kill()


def test_captions_carry_the_recorded_stamps_at_another_rate_in_loops_and_after_pauses(
        make_bench, camera):
    bench = make_bench(use_sim_time=True, describe='regions').start()
    player = Player(bench, camera, '--paused', '--loop', '--rate', str(RATE), '--delay', '0',
                    '--remap', '/cam/image:=/image', '--remap', '/cam/mask:=/mask')
    recorded = {START_NS + i * STEP_NS - STAMP_GAP_NS for i in range(FRAMES)}
    try:
        assert player.first_call('pause') == 'paused'
        camera = bench.node.cameras['']
        wait_for(lambda: camera.images.publishers and camera.masks.publishers)
        assert not bench.captions
        assert player.call('resume') == 'playing'

        def stamps():
            return [nanoseconds(record['stamp']) for record in bench.captions]
        wait_for(lambda: recorded <= set(stamps()), 2 * TIMEOUT_S, 'captions of all frames')
        wait_for(lambda: any(b < a for a, b in zip(stamps(), stamps()[1:])), what='a loop')
        assert set(stamps()) == recorded
        for record in bench.captions:
            assert [caption['region']['label'] for caption in record['captions']] == [1, 2]
            # By the clock of this machine they are years old.
            assert abs(record['age_s']) < FRAMES * STEP_NS / 1e9
        first = START_NS / 1e9
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(player.times, player.times[1:])
                 if b[1] > a[1] >= first]
        assert 0.7 * RATE < sum(s for _, s in steps) / sum(s for s, _ in steps) < 1.4 * RATE

        assert player.call('toggle_paused') == 'paused'

        def stands_still():
            """Tell whether client and node have heard the same time, of late no other."""
            heard = {t for _, t in player.times[-5:]}
            here_s = bench.node.get_clock().now().nanoseconds / 1e9
            return len(heard) == 1 and abs(here_s - heard.pop()) < 1e-5
        wait_for(stands_still, what='a still clock')
        ticks = len(player.times)
        wait_for(lambda: len(player.times) > ticks + 10, what='captions of what was on its way')
        count, now = len(bench.captions), bench.node.get_clock().now()
        ticks = len(player.times)
        wait_for(lambda: len(player.times) > ticks + 5, what='ticks of a paused clock')
        assert bench.node.get_clock().now() == now and len(bench.captions) == count
        assert player.set_rate(8.0) and not player.set_rate(0.0)
        assert player.call('resume') == 'playing'
        wait_for(lambda: len(bench.captions) > count + 2, what='captions after the pause')
        status, out, err = player.end()
    finally:
        player.kill()
    assert status == 0, err
    assert out.startswith('played ') and ' messages on 2 topics, 1 not playable here' in out
    assert DROPPED.sub('', err) == (
        'caption-ros: /tf is not played (1 messages): tf2_msgs/msg/TFMessage is not installed\n')


def _received(ros_node, kind, topic, profile):
    got = []
    ros_node.create_subscription(kind, topic, got.append, profile)
    return got


def test_bytes_come_as_recorded_within_the_chosen_seconds(make_bench, tmp_path):
    from std_msgs.msg import String
    bench = make_bench()
    name = '/said'
    messages = [(name, START_NS + i * 10 ** 8, text(f'word {i}')) for i in range(30)]
    latched = ('/map_name', START_NS, text('attic'))
    path = write(tmp_path / 'in', {name: ('std_msgs/msg/String', [qos('RELIABLE')]),
                                   '/map_name': ('std_msgs/msg/String',
                                                 [qos('RELIABLE', 'TRANSIENT_LOCAL', 1)])},
                 [latched, *messages])
    said = _received(bench.client, String, name, QoSProfile(depth=100))
    node = Replay(Recording(path), ReplayOptions(rate=20.0, start_s=1.0, end_s=1.95, clock=False))
    try:
        publishers = {info.topic_type: info for info in
                      bench.client.get_publishers_info_by_topic(name)}
        assert list(publishers) == ['std_msgs/msg/String']
        wait_for(lambda: node.count_subscribers(name) > 0)
        summary = node.play()
        assert not bench.client.get_publishers_info_by_topic('/clock')
        wait_for(lambda: len(said) == 10)
        assert [message.data for message in said] == [f'word {i}' for i in range(10, 20)]
        # What was latched before the start is there, for who comes late too.
        late = _received(bench.client, String, '/map_name', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        wait_for(lambda: [message.data for message in late] == ['attic'])
        assert summary.published == {name: 10, '/map_name': 1} and summary.passes == 1
    finally:
        node.destroy_node()


@pytest.mark.parametrize(('end_s', 'count'), [(None, 10), (6.5, 7)])
def test_a_loop_that_was_recorded_into_two_files_is_played_twice_at_its_pace(
        ros, tmp_path, monkeypatch, end_s, count):
    topics = {'/said': ('std_msgs/msg/String', [qos('RELIABLE')])}
    messages = [('/said', START_NS + i * 10 ** 9, text(f'word {i}')) for i in range(10)]
    path = write(tmp_path / 'in', topics, messages)
    (write(tmp_path / 'again', topics, messages) / 'again.mcap').rename(path / 'again.mcap')
    metadata = (path / 'metadata.yaml').read_text()
    (path / 'metadata.yaml').write_text(metadata.replace(
        '  - in.mcap', '  - in.mcap\n  - again.mcap'))
    node = Replay(Recording(path), ReplayOptions(rate=10.0, end_s=end_s, delay_s=0))
    published, publish = [], node._publish

    def noted(message):
        published.append((time.monotonic(), (message.received_ns - START_NS) // 10 ** 9))
        publish(message)
    monkeypatch.setattr(node, '_publish', noted)
    try:
        summary = node.play()
    finally:
        node.destroy_node()
    assert [second for _, second in published] == [*range(count)] * 2
    assert summary.published == {'/said': 2 * count}
    for first, last in ((0, count - 1), (count, 2 * count - 1)):
        assert published[last][0] - published[first][0] > 0.7 * (count - 1) / 10.0
    assert summary.latest_s < 0.5  # without a step back, nearly 1


def test_the_end_waits_for_all_publishers_together(ros, camera, monkeypatch):
    monkeypatch.setattr(replay, '_FLUSH_S', 0.1)
    waited = []

    class Unheard:
        def wait_for_all_acked(self, timeout):
            waited.append(timeout.nanoseconds)
            time.sleep(timeout.nanoseconds / 1e9)
    node = Replay(Recording(camera))
    try:
        monkeypatch.setattr(node, '_publishers_of', {i: Unheard() for i in range(3)})
        node.stop()
        node.play()
    finally:
        node.destroy_node()
    assert len(waited) == 3 and min(waited) >= 0 and sum(waited) < 150_000_000


@pytest.mark.parametrize(('offered', 'reliability', 'durability'), [
    ([], 'RELIABLE', 'VOLATILE'),
    ([qos()], 'BEST_EFFORT', 'VOLATILE'),
    ([qos('RELIABLE', 'TRANSIENT_LOCAL')], 'RELIABLE', 'TRANSIENT_LOCAL'),
    ([qos(), qos('RELIABLE')], 'RELIABLE', 'VOLATILE'),
    ([qos('UNKNOWN', 'UNKNOWN', 2 ** 31)], 'RELIABLE', 'VOLATILE'),
])
def test_the_recorded_qos_is_offered(ros, tmp_path, offered, reliability, durability):
    path = write(tmp_path / 'in', {'/a': ('std_msgs/msg/String', offered)},
                 [('/a', START_NS, text('a'))])
    node = Replay(Recording(path))
    try:
        (info,) = [info for info in node.get_publishers_info_by_topic('/a')
                   if info.node_name == 'replay']
        assert info.qos_profile.reliability == ReliabilityPolicy[reliability]
        assert info.qos_profile.durability == DurabilityPolicy[durability]
    finally:
        node.destroy_node()


def test_topics_that_cannot_be_played_are_left_out_with_their_reason(ros, tmp_path):
    TYPES.register(get_types_from_msg('int32 a', 'antigravity/msg/Hidden'))
    string = 'std_msgs/msg/String'
    topics = {'/good': (string, []), '/bad-name': (string, []),
              '/other': ('std_msgs/msg/Int64', []), '/clock': ('rosgraph_msgs/msg/Clock', []),
              '/odd': ('antigravity/msg/Hidden', []), '/renamed': ('std_msgs/msg/Int32', [])}
    messages = [(name, START_NS, text('a')) for name in topics] + [
        ('/odd', START_NS, b''), ('/renamed', START_NS + 1, b'\0\1\0\0\7\0\0\0')]
    path = write(tmp_path / 'in', topics, messages,
                 dict.fromkeys(('/other', '/renamed'), 'RIHS01_' + 64 * '0'),
                 {'/other': 'int32 data', '/renamed': 'int32 Data'})
    node = Replay(Recording(path), ReplayOptions(delay_s=0))
    try:
        assert node.reasons == {
            '/other': 'std_msgs/msg/Int64 was recorded with another definition than the '
                      'installed one',
            '/bad-name': 'Invalid topic name',
            '/clock': 'the clock of this replay takes its place',
            '/odd': 'antigravity/msg/Hidden is not installed'}
        assert 'antigravity' not in sys.modules
        assert node.summary.left_out == {'/other': 1, '/bad-name': 1, '/clock': 1, '/odd': 2}
        assert node.play().published == {'/good': 1, '/renamed': 1}
        (damage,) = node.summary.damage  # a text where an int32 was promised
        assert damage.topic == '/renamed' and 'could not be published' in damage.reason
    finally:
        node.destroy_node()
    with pytest.raises(RecordingError, match='nothing of .* can be played here: /odd.* not inst'):
        Replay(Recording(path), ReplayOptions(topics=('odd',)))


@pytest.mark.parametrize('msgtype', [
    'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/PointCloud2', 'std_msgs/msg/Empty',
    'std_msgs/msg/Byte', 'std_msgs/msg/Char', 'geometry_msgs/msg/PoseWithCovarianceStamped',
    'diagnostic_msgs/msg/DiagnosticArray', 'rcl_interfaces/msg/ParameterEvent'])
def test_layouts_of_one_type_are_equal_and_tell_a_changed_one(msgtype):
    here = installed_layout(message_type(msgtype), message_type)
    definition = TYPES.generate_msgdef(msgtype, ros_version=2)[0]
    assert recorded_layout(msgtype, definition) == here
    assert recorded_layout(msgtype, f'int8 more\n{definition}') != here


def test_damage_is_counted_and_ends_with_status_1(tmp_path, camera):
    path = tmp_path / 'camera'
    path.mkdir()
    raw = (camera / 'camera.mcap').read_bytes()
    (path / 'camera.mcap').write_bytes(raw)
    metadata = (camera / 'metadata.yaml').read_text()
    (path / 'metadata.yaml').write_text(metadata.replace(
        f'message_count: {2 * FRAMES + 1}', f'message_count: {2 * FRAMES + 2}'))
    done = subprocess.run([sys.executable, '-m', 'caption_ros.cli', 'replay', str(path), '--rate',
                           '100', '--delay', '0', '--topic', 'cam/image'],
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert f'played {FRAMES} messages on 1 topics, 0 not playable' in done.stdout
    assert 'skipped: metadata.yaml promises 82 messages' in done.stderr


@pytest.mark.parametrize(('words', 'said'), [
    (['{tmp}'], 'has no metadata.yaml; give a rosbag2 folder'),
    (['{tmp}/none.mcap'], 'does not exist; give a rosbag2 folder'),
    (['{bag}', '--rate', '0'], 'rate must be 0.01 to 100, got 0.0'),
    (['{bag}', '--start', '-1'], 'start must be 0 s or more, got -1.0'),
    (['{bag}', '--start', '2', '--end', '1'], 'end must be later than start, 2.0 s, got 1.0'),
    (['{bag}', '--delay', '-1'], 'delay must be 0 to 3600 s, got -1.0'),
    (['{bag}', '--start', 'inf'], 'start must be a number of seconds that a recording can have, '
                                  'got inf'),
    (['{bag}', '--end', 'inf'], 'end must be a number of seconds that a recording can have, got'),
    (['{bag}', '--end', '1e300'], 'end must be a number of seconds that a recording can have'),
    (['{bag}', '--remap', 'image'], '--remap image is no FROM:=TO'),
])
def test_bad_input_is_one_line_and_status_2(words, said, camera, tmp_path, capsys, monkeypatch):
    (tmp_path / 'empty').mkdir()
    words = [word.format(tmp=tmp_path / 'empty', bag=camera) for word in words]
    monkeypatch.setattr(sys, 'argv', ['caption-ros', 'replay', *words])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == ''
    assert err.startswith('caption-ros: ') and said in err and err.count('\n') == 1


@pytest.mark.parametrize(('options', 'said'), [
    ({'topics': ('/nose',)}, '--topic nose is not in .*; it has cam/image, cam/mask, tf'),
    ({'start_s': 60.0}, 'start is 60 s and .* is 3.9 s long; give an earlier start'),
])
def test_options_that_do_not_fit_the_recording_are_refused(ros, camera, options, said):
    with pytest.raises(OptionError, match=said):
        Replay(Recording(camera), ReplayOptions(**options))


def test_keys_act_one_by_one_and_the_terminal_is_as_before(monkeypatch):
    main_end, terminal = pty.openpty()
    pressed = []
    with os.fdopen(terminal, 'rb', buffering=0) as stdin:
        monkeypatch.setattr(sys, 'stdin', stdin)
        before = termios.tcgetattr(terminal)
        actions = {b' ': lambda: pressed.append('space'), UP: lambda: pressed.append('up')}
        with keys(actions) as has_keys:
            assert has_keys
            for key in (b' ', b'x', UP):
                count = len(pressed)
                os.write(main_end, key)
                wait_for(lambda n=count, k=key: len(pressed) > n or k == b'x')
                time.sleep(0.05)  # keys that come together are read as one
        assert pressed == ['space', 'up'] and termios.tcgetattr(terminal) == before
    os.close(main_end)
    monkeypatch.setattr(sys, 'stdin', None)
    with keys({}) as has_keys:
        assert not has_keys
