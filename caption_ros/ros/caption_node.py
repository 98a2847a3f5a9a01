# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""caption_node: captions of camera images and of the regions that a segmenter marks.

A lifecycle node: configuring loads the model, activating subscribes, cleaning up frees the
model. Subscriptions only hand messages on; one thread converts, another captions and hands over.
"""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import String
from std_srvs.srv import Trigger

from caption_ros.captioner import Captioner, CaptionOptions, check_focus, check_prompt
from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.devices import device_label
from caption_ros.captioners.gpu_figures import GpuFigures
from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.health import Counters, Level, Status, Trouble, inference_status, model_status
from caption_ros.mailbox import Mailbox
from caption_ros.message import stamp_to_ns
from caption_ros.resources import PROFILE_VARIABLES
from caption_ros.ros.camera import Camera
from caption_ros.ros.diagnostics import diagnostics_msg
from caption_ros.ros.intake import Frame
from caption_ros.ros.look import Outcome
from caption_ros.ros.messages import caption_text, captions_to_msgs
from caption_ros.ros.parameters import (
    NODE_PARAMETERS,
    NodeParameters,
    declare,
    problems,
    unconfigured_only,
    values_of,
)
from caption_ros.ros.pointing import optional_msgs
from caption_ros.ros.reader import Reader
from caption_ros.ros.spinning import run_node
from caption_ros.ros.worker import CaptionWorker

_FOLLOW_PERIOD_S = 0.25
_WARN_PERIOD_S = 5.0
_DESCRIBE_LOOK_UP_S = 0.1
_DESCRIBE_PATIENCE_S = 2.0  # for a frame, when there is none or only an old one
_EXIT_TIMEOUT_S = 8.0
_FIRST_BATCH_S = 30.0  # may compile, or look for the fastest kernels
_HANG, _LEAST_HANG_S = 10, 20.0  # times the usual batch, and no less
_BAD_LOOKS = 3  # seconds that an input is bad before it is logged; a camera may start later
_TOGETHER = 'values that do not go together'
_TO_COUNT = ('frames captioned', 'captions published', 'captions held back', 'model failures',
             'results dropped after deactivation', 'prompts refused')


class CaptionNode(LifecycleNodeMixin, Node):
    """Captions images and their regions.

    Args:
        load_captioner: Loads a model by name, with keywords device and dtype; the package's own
            if None.
        kwargs: Passed on to rclpy's Node.
    """

    def __init__(self, *, load_captioner: Callable[..., Captioner] | None = None,
                 **kwargs: Any) -> None:
        Node.__init__(self, 'caption_node', **kwargs)
        # A group of its own: parameters can be read and diagnostics go on while a model loads.
        self._lifecycle_group = MutuallyExclusiveCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._lifecycle_group)
        self._load_captioner = load_captioner
        self._refused = declare(self, NODE_PARAMETERS)
        self._settings = self._read_parameters()
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)

        self._counters = Counters()
        for name in _TO_COUNT:
            self._counters.add(name, 0)
        self._lock = threading.RLock()  # of what transitions change and other threads read
        self._state = 'unconfigured'
        self._session = 0
        self._captioner: Captioner | None = None
        self._gpu = GpuFigures('cpu')
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._prompt = ''
        self._prompts: Any = None
        self.cameras: dict[str, Camera] = {}
        self._worker: CaptionWorker | None = None
        self._outcome_changed = threading.Condition(self._lock)
        self._problem = ''
        self._inference_trouble = Trouble()
        self._failures_in_a_row = 0
        self._latencies_s: deque[float] = deque(maxlen=30)
        self._ages_s: deque[float] = deque(maxlen=30)
        self._warned_s: dict[str, float] = {}
        self._bad_looks: dict[str, int] = {}  # in a row, by camera

        # Not a lifecycle publisher: diagnostics are wanted most when the node is not active.
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)

        self._io_group = MutuallyExclusiveCallbackGroup()
        self._reader = Reader(self)
        self.cameras = {name: Camera(self, name, lambda: self._settings, self._warn,
                                     self._io_group, self._reader)
                        for name in self._settings.cameras}
        self._say_what_is_not_installed()

        # Calls that come together wait together, for the same frame.
        self._describe_group = ReentrantCallbackGroup()
        self.create_service(Trigger, '~/describe', self._on_describe,
                            callback_group=self._describe_group)
        # Loading a model takes seconds, and describe waits for the worker.
        self.slow_groups = (self._lifecycle_group, self._describe_group)
        # Steady clocks: simulated time may stand still or jump back.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._on_diagnostics, callback_group=self._io_group, clock=steady)
        self.create_timer(_FOLLOW_PERIOD_S, self._on_follow, callback_group=self._io_group,
                          clock=steady)
        self._autostart_timer = None
        if self.get_parameter('autostart').value:
            self._autostart_timer = self.create_timer(
                0.0, self._on_autostart, callback_group=self._lifecycle_group, clock=steady)

    # Parameters

    def _read_parameters(self) -> NodeParameters:
        values = values_of(self, NODE_PARAMETERS)
        self._refused.pop(_TOGETHER, None)
        defaults = {spec.name: spec.default for spec in NODE_PARAMETERS}
        values |= {name: defaults[name] for name in self._refused}
        try:
            return NodeParameters.from_values(values)
        except OptionError as error:
            self._refused[_TOGETHER] = str(error)
        try:
            # The cameras are made once: they have to be there when the rest is mended.
            return NodeParameters.from_values(defaults | {'cameras': values['cameras']})
        except OptionError:
            return NodeParameters.from_values(defaults)

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        values = {change.name: change.value for change in changes}
        found = problems(values)
        with self._lock:
            if self._state != 'unconfigured':
                found += [f'{name} can be changed only while the node is unconfigured, and it is '
                          f'{self._state}: clean it up first' for name, value in values.items()
                          if unconfigured_only(name) and value != self.get_parameter(name).value]
            captioner = self._captioner
        if not found and captioner is not None:
            try:
                check_focus(captioner, values.get('focus', 'auto'))
                check_prompt(captioner, values.get('prompt', ''))
            except OptionError as error:
                found.append(str(error))
        if not found:
            try:
                NodeParameters.from_values(values_of(self, NODE_PARAMETERS) | values)
            except OptionError as error:
                found.append(str(error))
        return SetParametersResult(successful=not found, reason='; '.join(found))

    def _on_parameters_set(self, changes: list[Parameter]) -> None:
        with self._lock:
            for change in changes:
                self._refused.pop(change.name, None)
            self._settings = self._read_parameters()
            for camera in self.cameras.values():
                camera.intake.apply(self._settings)
                if self._state == 'active':
                    camera.subscribe()

    # Transitions

    def _on_autostart(self) -> None:
        if self._autostart_timer is not None:
            self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and start the worker; fail with one sentence when that cannot be."""
        with self._lock:
            self._state = 'configuring'
            self._problem = ''
            refused = '; '.join(self._refused.values())
            parameters = self._settings
        mailbox: Mailbox[Frame] = Mailbox()
        worker = None
        try:
            if refused:
                raise OptionError(refused)
            worker = CaptionWorker(lambda: self._load(parameters), mailbox, self._options,
                                   lambda: self._settings, self._on_outcomes,
                                   self._on_worker_failed)
            captioner = worker.captioner()
            # Those of now: they may have been changed while it loaded.
            _check_options(captioner, self._settings.options)
            gpu = GpuFigures(captioner.device)
        except Exception as error:  # whatever a model library raises, configure can be tried again
            if worker is not None and worker.close():
                worker.free()
            text = _one_line(error)
            self.get_logger().error(f'cannot configure: {text}')
            with self._lock:
                self._state = 'unconfigured'
                self._problem = text
            return TransitionCallbackReturn.FAILURE
        with self._lock:
            self._captioner = captioner
            self._gpu = gpu
            self._mailbox = mailbox
            self._worker = worker
            for camera in self.cameras.values():
                camera.use(self._mailbox)
                camera.outcome = None
            self._failures_in_a_row = 0
            self._state = 'inactive'
        self.get_logger().info(f'loaded {captioner.name} on {device_label(captioner.device)}, '
                               f'{captioner.dtype}')
        return super().on_configure(state)

    def _load(self, parameters: NodeParameters) -> Captioner:
        load = self._load_captioner
        if load is None:
            from caption_ros.captioners import load_captioner as load  # torch is heavy
        extra: dict[str, Any] = {}
        if parameters.filter:
            extra['filter_model'] = parameters.filter
        if parameters.acceleration != Acceleration():
            extra['acceleration'] = parameters.acceleration
        return load(parameters.model, device=parameters.device, dtype=parameters.dtype, **extra)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe; fail with one sentence when that cannot be."""
        result = super().on_activate(state)
        try:
            with self._lock:
                self._session += 1
                self._state = 'active'
                for camera in self.cameras.values():
                    camera.start(self._session)
                self._prompts = self.create_subscription(String, 'prompt', self._on_prompt, 10,
                                                         callback_group=self._io_group)
                self._problem = ''
        except Exception as error:  # rclpy says nothing of what a transition raises
            self._stop_listening()
            super().on_deactivate(state)
            self._problem = f'cannot activate: {_one_line(error)}'
            self.get_logger().error(self._problem)
            return TransitionCallbackReturn.FAILURE
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; inference in work goes on, its result is dropped."""
        self._stop_listening()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything."""
        self._stop_listening()
        self._free()
        with self._lock:
            self._state = 'finalized'
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self._stop_listening()
        self._free()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker, free the model and destroy the node."""
        try:
            if hasattr(self, '_worker'):
                self._stop_listening()
                self._free(_EXIT_TIMEOUT_S)
            if hasattr(self, '_reader'):
                self._reader.close()
        finally:
            super().destroy_node()

    def _stop_listening(self) -> None:
        with self._outcome_changed:
            if self._state == 'active':
                self._state = 'inactive'
            self._session += 1
            for camera in self.cameras.values():
                camera.stop()
            self._mailbox.take_all(0.0)
            if self._prompts is not None:
                self.destroy_subscription(self._prompts)
            self._prompts, self._prompt = None, ''
            self._outcome_changed.notify_all()

    def _free(self, timeout_s: float | None = None) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            captioner, self._captioner = self._captioner, None
            for camera in self.cameras.values():
                camera.outcome = None
        # Without the lock: the worker needs it to hand over what it has in work.
        ended = worker is None or worker.close(timeout_s)
        if captioner is not None and ended:
            captioner.close()
        with self._lock:
            self._state = 'unconfigured'

    # Input

    def _say_what_is_not_installed(self) -> None:
        if optional_msgs('vision_msgs') is None:
            self.get_logger().info('vision_msgs is not installed: no topics boxes, mask_labels '
                                   'and detections')
        if self._settings.people != 'none' and optional_msgs('hri_msgs') is None:
            self.get_logger().warning(f'people is {self._settings.people} and hri_msgs is not '
                                      'installed: nobody is followed')

    def _on_prompt(self, message: String) -> None:
        try:
            replace(self._settings.options, prompt=message.data)
        except OptionError as error:
            self._refuse_prompt(str(error))
            return
        self._prompt = message.data

    def _refuse_prompt(self, text: str) -> None:
        self._counters.add('prompts refused')
        for camera in self.cameras.values():
            camera.trouble.note(text, time.monotonic())
        self._warn('prompt', text)

    def _options(self) -> CaptionOptions:
        prompt = self._prompt
        options = self._settings.options
        return replace(options, prompt=prompt) if prompt else options

    def _on_follow(self) -> None:
        with self._lock:
            for camera in self.cameras.values():
                camera.follow()

    # Output

    def _on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Publish or count the outcomes of a batch; on the worker's thread."""
        to_tell = [outcome for outcome in outcomes
                   if self._publish(self.cameras[outcome.frame.camera], outcome)
                   or outcome.unchanged]
        # Drawing is slow: without the lock, and after all captions have gone out.
        for outcome in to_tell:
            if outcome.frame.session == self._session:
                self.cameras[outcome.frame.camera].tell(outcome)

    def _on_worker_failed(self, error: Exception) -> None:
        text = f'a result could not be handed over: {_one_line(error)}'
        self._counters.add('model failures')
        self._inference_trouble.note(text, time.monotonic())
        self._warn('worker', text)

    def _publish(self, camera: Camera, outcome: Outcome) -> bool:
        """Publish the captions of an outcome; return True when they tell something new."""
        if outcome.scaled_mask:
            camera.counters.add('masks scaled')
            self._warn(camera.topic('mask size'), outcome.scaled_mask)
        if outcome.left_out:
            camera.counters.add('regions left out', outcome.left_out)
        header = outcome.frame.header
        stamp_ns = stamp_to_ns(header.stamp)
        with self._outcome_changed:
            if outcome.frame.session != self._session:
                self._counters.add('results dropped after deactivation')
                return False
            last = camera.outcome
            again = (last is not None and last.frame.has_image_of(outcome.frame)
                     and not isinstance(last.error, OptionError))
            camera.outcome = outcome.without_pixels()
            self._outcome_changed.notify_all()
            if outcome.error is not None:
                self._note_failure(camera, outcome)
                # Where no region is left, what was there is gone.
                return outcome.bad_frame and outcome.regions == 0 and not again
            if outcome.unchanged:
                camera.counters.add('frames skipped as unchanged')
                return False
            self._failures_in_a_row = 0
            captions = outcome.said
            if again or not outcome.captions or self._captioner is None:
                return False
            self._counters.add('captions held back', len(outcome.captions) - len(captions))
            if not captions:
                return True
            # A stamp of 0 has no age: the time since the frame came stands for it.
            age_s = ((self.get_clock().now().nanoseconds - stamp_ns) * 1e-9 if stamp_ns
                     else time.monotonic() - outcome.frame.arrived_s)
            text, record = captions_to_msgs(
                captions, header, model=self._captioner.name,
                latency_s=outcome.latency_s, age_s=age_s)
            camera.caption.publish(text)
            camera.captions.publish(record)
            self._latencies_s.append(outcome.latency_s)
            self._ages_s.append(age_s)
        self._counters.add('frames captioned')
        self._counters.add('captions published', len(captions))
        return True

    def _note_failure(self, camera: Camera, outcome: Outcome) -> None:
        text = _one_line(outcome.error)
        prompt = outcome.options.prompt
        if isinstance(outcome.error, OptionError) and prompt != self._settings.options.prompt:
            # The parameters suited the model before: what came by topic does not.
            if self._prompt == prompt:  # and not another since, or of another camera's frame
                self._prompt = ''
                self._refuse_prompt(text)
            camera.intake.again(outcome.frame)
            return
        if outcome.bad_frame:
            camera.note('bad frame', f'bad frame dropped: {text}')
            camera.counters.add('bad frames')
            return
        self._failures_in_a_row += 1
        self._counters.add('model failures')
        self._inference_trouble.note(f'the model failed: {text}', time.monotonic())
        self._warn('model', f'the model failed, frame dropped: {text}')

    def _on_describe(self, _request: Trigger.Request, response: Trigger.Response,
                     ) -> Trigger.Response:
        response.success, response.message = self._describe()
        return response

    def _describe(self) -> tuple[bool, str]:
        with self._outcome_changed:
            if self._state != 'active' or self._worker is None:
                return False, f'the node is {self._state}, not active'
            session = self._session
            deadline_s = time.monotonic() + _DESCRIBE_PATIENCE_S
            while not (wanted := self._newest()) and time.monotonic() < deadline_s:
                self._outcome_changed.wait(_DESCRIBE_LOOK_UP_S)
                if self._session != session or self._worker is None:
                    return False, 'the node was deactivated meanwhile'
            if not wanted:
                return False, f'no frame within {_DESCRIBE_PATIENCE_S:.0f} s: ' + '; '.join(
                    camera.status(time.monotonic(), active=True).message
                    for camera in self.cameras.values())
            asked: dict[str, CaptionOptions] = {}

            def are_answered() -> bool:
                return all([self._answered(self.cameras[name], frame, asked)
                            for name, frame in wanted.items()])
            if not are_answered():
                self._worker.hurry()
            while not are_answered():
                self._outcome_changed.wait(_DESCRIBE_LOOK_UP_S)
                if self._session != session:
                    return False, 'the node was deactivated meanwhile'
                if self._hangs(time.monotonic()):
                    return False, self._inference_status(time.monotonic()).message
            return _answer({name: outcome for name in wanted
                            if (outcome := self.cameras[name].outcome) is not None})

    def _newest(self) -> dict[str, Frame]:
        """Return the newest frame of each camera that is not silent."""
        oldest_s = time.monotonic() - self._settings.stale_after_s
        return {name: frame for name, camera in self.cameras.items()
                if camera.intake.newest_s >= oldest_s
                and (frame := camera.intake.renew()) is not None}

    def _answered(self, camera: Camera, frame: Frame, asked: dict[str, CaptionOptions]) -> bool:
        """Tell whether a frame, or a newer one, was captioned as is wanted now.

        The newest one, if that was with older options, is captioned again.

        Args:
            camera: Whose frame it is.
            frame: The frame.
            asked: The options that each camera's frame was left to the worker again for.
        """
        outcome, options = camera.outcome, self._options()
        if outcome is None or not (outcome.frame.is_same(frame)
                                   or outcome.frame.arrived_s > frame.arrived_s):
            return False
        if outcome.options == options or isinstance(outcome.error, OptionError):
            return True
        if asked.get(camera.name) != options and self._worker is not None:
            asked[camera.name] = options
            camera.intake.again(outcome.frame)
            self._worker.hurry()
        return False

    # Health

    def _warn(self, kind: str, text: str) -> None:
        """Log a warning, each kind now and then only."""
        now_s = time.monotonic()
        if now_s - self._warned_s.get(kind, float('-inf')) >= _WARN_PERIOD_S:
            self._warned_s[kind] = now_s
            self.get_logger().warning(text)

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            active = self._state == 'active'
            inputs = {name: camera.status(now_s, active=active, sample=True)
                      for name, camera in self.cameras.items()}
            for name, status in inputs.items():
                self._log_change(name, status, now_s)
            statuses = [self._model_status(), *inputs.values(), self._inference_status(now_s)]
            hardware_id = ('none' if self._captioner is None
                           else device_label(self._captioner.device))
        self._diagnostics.publish(diagnostics_msg(
            statuses, self.get_name(), hardware_id, self.get_clock().now().to_msg()))

    def _log_change(self, name: str, status: Status, now_s: float) -> None:
        """Log what has been wrong with an input for a while, once, and that it is well again."""
        if self.cameras[name].trouble.is_recent(now_s):
            return  # has been logged
        looks = self._bad_looks.get(name, 0)
        self._bad_looks[name] = 0 if status.level is Level.OK else looks + 1
        if self._bad_looks[name] == _BAD_LOOKS:
            self.get_logger().warning(f'{status.name}: {status.message}')
        elif status.level is Level.OK and looks >= _BAD_LOOKS:
            self.get_logger().info(f'{status.name}: {status.message}')

    def _model_status(self) -> Status:
        captioner = self._captioner
        if captioner is None:
            return model_status(self._state, self._settings.model, {}, self._problem)
        details = {
            'family': captioner.family, 'device': device_label(captioner.device),
            'dtype': captioner.dtype, 'focus modes': ', '.join(captioner.focus_modes),
            'filter': getattr(captioner, 'filter_name', 'none')}
        details |= captioner.facts() | self._gpu.read()
        return model_status(self._state, self._settings.model, details, self._problem,
                            captioner.problems())

    def _inference_status(self, now_s: float) -> Status:
        counts = self._counters.all()
        values = {name: str(counts[name]) for name in _TO_COUNT}
        told = [camera.telling.counts() for camera in self.cameras.values()]
        values |= {name: str(sum(each[name] for each in told)) for name in told[0]}
        if self._latencies_s:
            values['median latency s'] = f'{statistics.median(self._latencies_s):.3f}'
            values['median age s'] = f'{statistics.median(self._ages_s):.3f}'
        values['failures in a row'] = str(self._failures_in_a_row)
        return inference_status(
            active=self._state == 'active', captioned=counts['frames captioned'],
            held_back=counts['captions held back'], failures_in_a_row=self._failures_in_a_row,
            trouble=self._inference_trouble, now_s=now_s, values=values,
            hangs_for_s=self._in_work_s(now_s) if self._hangs(now_s) else 0.0)

    def _in_work_s(self, now_s: float) -> float:
        """Return for how long the worker has been at one batch."""
        since_s = None if self._worker is None else self._worker.since_s
        return 0.0 if since_s is None else now_s - since_s

    def _hangs(self, now_s: float) -> bool:
        """Tell whether one batch takes far longer than those before."""
        usual_s = statistics.median(self._latencies_s) if self._latencies_s else _FIRST_BATCH_S
        return self._in_work_s(now_s) > max(_LEAST_HANG_S, _HANG * usual_s)


def _check_options(captioner: Captioner, options: CaptionOptions) -> None:
    """Raise OptionError where a model cannot do what is asked of it."""
    check_focus(captioner, options.focus)
    check_prompt(captioner, options.prompt)


def _one_line(error: Exception | None) -> str:
    """Return an error as one line; with its type when it is not one of the package's own."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ''
    return text if isinstance(error, CaptionRosError) else f'{type(error).__name__}: {text}'


def _answer(outcomes: dict[str, Outcome]) -> tuple[bool, str]:
    """Return whether there are captions, and them or why there are none."""
    said = {name: caption_text(outcome.said) for name, outcome in outcomes.items()
            if outcome.error is None and outcome.said}
    if not said:
        return False, '; '.join(dict.fromkeys(map(_why_nothing, outcomes.values())))
    return True, '; '.join(f'{name}: {text}' if name else text for name, text in said.items())


def _why_nothing(outcome: Outcome) -> str:
    if outcome.error is not None:
        return _one_line(outcome.error)
    best = max(caption.match or 0.0 for caption in outcome.captions)
    return (f'the filter held back all {len(outcome.captions)} captions: the best match is '
            f'{best:.2f}, wanted {outcome.options.filter_threshold:.2f}')


def load_to_stay(*args: Any, **options: Any) -> Captioner:
    """Load a captioner as load_captioner does, and keep the garbage collector from what is there.

    A model is hundreds of thousands of objects. To look for cycles among them takes 0.2 s, in
    which no image is read. For a process that is there for one model: all its objects count.
    """
    from caption_ros.captioners import load_captioner
    gc.unfreeze()  # what is left of the model before
    captioner = load_captioner(*args, **options)
    gc.collect()
    gc.freeze()
    return captioner


def heed_profile() -> None:
    """Let a Fast DDS profile, where one is named, say what becomes of the memory of images.

    ROS 2 sets that by itself, unless told otherwise before it starts: what as many images took as
    have ever waited to be read is then kept for as long as the node runs.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        os.environ.setdefault('RMW_FASTRTPS_USE_QOS_FROM_XML', '1')


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    heed_profile()
    try:
        run_node(partial(CaptionNode, load_captioner=load_to_stay), args)
    finally:
        # Else rclpy's context outlives the process, and Fast DDS's shared memory with it.
        gc.unfreeze()


if __name__ == '__main__':
    main()
