# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""caption_node: captions of camera images and of the regions that a segmenter marks.

A lifecycle node: configuring loads the model, activating subscribes, cleaning up frees the
model. Subscriptions only hand messages on; one worker thread converts, captions and hands over.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from caption_ros.captioner import Captioner, CaptionOptions, check_focus
from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.health import (
    Counters,
    Level,
    Status,
    Trouble,
    inference_status,
    input_status,
    model_status,
)
from caption_ros.mailbox import Mailbox
from caption_ros.message import stamp_to_ns
from caption_ros.ros.diagnostics import (
    LOST_SHARE,
    RecentCounts,
    diagnostics_msg,
    mask_problem,
    transport_hint,
)
from caption_ros.ros.intake import Frame, Intake
from caption_ros.ros.messages import caption_text, captions_to_msgs
from caption_ros.ros.parameters import (
    NODE_PARAMETERS,
    NodeParameters,
    declare,
    problems,
    unconfigured_only,
    values_of,
)
from caption_ros.ros.pointing import Marks, Pointing, optional_msgs
from caption_ros.ros.spinning import run_node
from caption_ros.ros.subscriptions import FollowingSubscription, compressed_topic
from caption_ros.ros.telling import Telling
from caption_ros.ros.worker import CaptionWorker, Outcome

_FOLLOW_PERIOD_S = 0.25
_WARN_PERIOD_S = 5.0
_DESCRIBE_LOOK_UP_S = 0.1
_DESCRIBE_PATIENCE_S = 2.0  # for a frame, when there is none or only an old one
_EXIT_TIMEOUT_S = 8.0
_TOGETHER = 'values that do not go together'
_TO_COUNT = ('images received', 'masks received', 'frames captioned', 'captions published',
             'frames replaced by a newer one', 'bad frames', 'images with stamp 0',
             'masks scaled', 'images lost in transport', 'masks lost in transport',
             'captions held back', 'model failures', 'results dropped after deactivation',
             'prompts refused')


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
        self._recent = RecentCounts()
        self._lock = threading.RLock()  # of what transitions change and other threads read
        self._state = 'unconfigured'
        self._session = 0
        self._captioner: Captioner | None = None
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._pointing: Pointing | None = None
        self._prompt = ''
        self._intake = self._new_intake()
        self._worker: CaptionWorker | None = None
        self._outcome: Outcome | None = None
        self._outcome_changed = threading.Condition(self._lock)
        self._model_problem = ''
        self._input_trouble = Trouble()
        self._inference_trouble = Trouble()
        self._failures_in_a_row = 0
        self._latencies_s: deque[float] = deque(maxlen=30)
        self._ages_s: deque[float] = deque(maxlen=30)
        self._warned_s: dict[str, float] = {}

        self._caption_publisher = self.create_lifecycle_publisher(String, 'caption', 10)
        self._captions_publisher = self.create_lifecycle_publisher(String, 'captions', 10)
        self._telling = Telling(self, str)
        # Not a lifecycle publisher: diagnostics are wanted most when the node is not active.
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)

        self._io_group = MutuallyExclusiveCallbackGroup()
        self._images: FollowingSubscription | None = None
        self._masks: FollowingSubscription | None = None
        self._boxes: FollowingSubscription | None = None
        self._prompts: Any = None
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
        if not found and captioner is not None and 'focus' in values:
            try:
                check_focus(captioner, values['focus'])
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
            self._intake.apply(self._settings)
            if self._state == 'active':
                self._subscribe()

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
            self._model_problem = ''
            refused = '; '.join(self._refused.values())
            parameters = self._settings
        try:
            if refused:
                raise OptionError(refused)
            captioner = self._load(parameters)
        except Exception as error:  # whatever a model library raises, configure can be tried again
            text = _one_line(error)
            self.get_logger().error(f'cannot configure: {text}')
            with self._lock:
                self._state = 'unconfigured'
                self._model_problem = text
            return TransitionCallbackReturn.FAILURE
        with self._lock:
            self._captioner = captioner
            self._mailbox = Mailbox()
            self._intake = self._new_intake()
            self._failures_in_a_row = 0
            self._outcome = None
            self._worker = CaptionWorker(
                captioner, self._mailbox, self._options,
                lambda: self._settings.max_rate_hz, self._on_outcome)
            self._state = 'inactive'
        self.get_logger().info(f'loaded {captioner.name} on {captioner.device}, '
                               f'{captioner.dtype}')
        return super().on_configure(state)

    def _load(self, parameters: NodeParameters) -> Captioner:
        load = self._load_captioner
        if load is None:
            from caption_ros.captioners import load_captioner as load  # torch is heavy
        extra = {'filter_model': parameters.filter} if parameters.filter else {}
        captioner = load(parameters.model, device=parameters.device, dtype=parameters.dtype,
                         **extra)
        try:
            check_focus(captioner, parameters.options.focus)
        except OptionError:
            captioner.close()
            raise
        return captioner

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        result = super().on_activate(state)
        with self._lock:
            self._session += 1
            self._state = 'active'
            self._recent.clear()
            self._outcome = None
            self._input_trouble = Trouble()
            self._telling.start()
            self._intake.start(self._settings, self._session)
            self._subscribe()
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
        if hasattr(self, '_worker'):
            self._stop_listening()
            self._free(_EXIT_TIMEOUT_S)
        super().destroy_node()

    def _stop_listening(self) -> None:
        with self._outcome_changed:
            if self._state == 'active':
                self._state = 'inactive'
            self._session += 1
            self._intake.stop()
            self._mailbox.take(0.0)
            for subscription in (self._images, self._masks, self._boxes, self._pointing):
                if subscription is not None:
                    subscription.close()
            self._images = self._masks = self._boxes = self._pointing = None
            if self._prompts is not None:
                self.destroy_subscription(self._prompts)
            self._prompts, self._prompt = None, ''
            self._outcome_changed.notify_all()

    def _free(self, timeout_s: float | None = None) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            captioner, self._captioner = self._captioner, None
            self._outcome = None
        # Without the lock: the worker needs it to hand over what it has in work.
        ended = worker is None or worker.close(timeout_s)
        if captioner is not None and ended:
            captioner.close()
        with self._lock:
            self._state = 'unconfigured'

    # Input

    def _subscribe(self) -> None:
        """Subscribe to what the parameters ask for."""
        if self._images is None:
            compressed = self._settings.image_transport == 'compressed'
            self._images = FollowingSubscription(
                self, CompressedImage if compressed else Image,
                compressed_topic(self) if compressed else 'image',
                lambda message: self._intake.on_image(message),
                lambda count: self._counters.add('images lost in transport', count),
                self._io_group)
        if self._pointing is None:
            self._pointing = Pointing(self, str, self._settings.people, self._note_bad_input,
                                      self._io_group)
            self._prompts = self.create_subscription(String, 'prompt', self._on_prompt, 10,
                                                     callback_group=self._io_group)
        wants_masks = self._settings.options.describe != 'scene'
        if wants_masks and self._masks is None:
            self._masks = FollowingSubscription(
                self, Image, 'mask', lambda message: self._intake.on_mask(message),
                lambda count: self._counters.add('masks lost in transport', count),
                self._io_group)
            vision = optional_msgs('vision_msgs')
            if vision is not None:
                self._boxes = FollowingSubscription(
                    self, vision.Detection2DArray, 'boxes',
                    lambda message: self._intake.on_mask(message),
                    lambda count: self._counters.add('masks lost in transport', count),
                    self._io_group)
            self._intake.set_mask_publishers(self._mask_publishers())
        elif not wants_masks and self._masks is not None:
            self._masks.close()
            if self._boxes is not None:
                self._boxes.close()
            self._masks = self._boxes = None
            self._intake.set_mask_publishers(0)

    def _mask_publishers(self) -> int:
        return sum(source.publishers for source in (self._masks, self._boxes)
                   if source is not None)

    def _say_what_is_not_installed(self) -> None:
        if optional_msgs('vision_msgs') is None:
            self.get_logger().info('vision_msgs is not installed: no topics boxes, mask_labels '
                                   'and detections')
        if self._settings.people != 'none' and optional_msgs('hri_msgs') is None:
            self.get_logger().warning(f'people is {self._settings.people} and hri_msgs is not '
                                      'installed: nobody is followed')

    def _new_intake(self) -> Intake:
        return Intake(self._mailbox, self._counters, self._note_bad_input, self._marks)

    def _marks(self) -> Marks:
        pointing = self._pointing
        return Marks() if pointing is None else pointing.marks(self._settings.mask_timeout_s)

    def _on_prompt(self, message: String) -> None:
        try:
            replace(self._settings.options, prompt=message.data)
        except OptionError as error:
            self._refuse_prompt(str(error))
            return
        self._prompt = message.data

    def _refuse_prompt(self, text: str) -> None:
        self._counters.add('prompts refused')
        self._note_bad_input('prompt', text)

    def _options(self) -> CaptionOptions:
        prompt = self._prompt
        options = self._settings.options
        return replace(options, prompt=prompt) if prompt else options

    def _on_follow(self) -> None:
        with self._lock:
            for subscription in (self._images, self._boxes):
                if subscription is not None:
                    subscription.follow()
            if self._masks is not None:
                self._masks.follow()
                self._intake.set_mask_publishers(self._mask_publishers())
            self._intake.expire()

    # Output

    def _on_outcome(self, outcome: Outcome) -> None:
        """Publish or count an outcome; on the worker's thread."""
        # Drawing is slow: without the lock, and after the captions have gone out.
        if self._publish(outcome) and outcome.rgb is not None:
            self._telling.tell(
                outcome.frame.header, outcome.rgb, outcome.captions,
                masked=outcome.regions is not None, now_s=time.monotonic(),
                min_gap_s=self._settings.narration_min_gap_s,
                max_silence_s=self._settings.narration_max_silence_s)

    def _publish(self, outcome: Outcome) -> bool:
        """Publish the captions of an outcome; return True when they tell something new."""
        if outcome.scaled_mask:
            self._counters.add('masks scaled')
            self._warn('mask size', outcome.scaled_mask)
        header = outcome.frame.header
        stamp_ns = stamp_to_ns(header.stamp)
        with self._outcome_changed:
            if outcome.frame.session != self._session:
                self._counters.add('results dropped after deactivation')
                return False
            last = self._outcome
            again = (last is not None and last.frame is outcome.frame
                     and not isinstance(last.error, OptionError))
            self._outcome = outcome
            self._outcome_changed.notify_all()
            if outcome.error is not None:
                self._note_failure(outcome)
                # Where no region is left, what was there is gone.
                return outcome.bad_frame and outcome.regions == 0 and not again
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
            self._caption_publisher.publish(text)
            self._captions_publisher.publish(record)
            self._latencies_s.append(outcome.latency_s)
            self._ages_s.append(age_s)
        self._counters.add('frames captioned')
        self._counters.add('captions published', len(captions))
        return True

    def _note_failure(self, outcome: Outcome) -> None:
        text = _one_line(outcome.error)
        if isinstance(outcome.error, OptionError) and self._prompt:
            # The parameters suited the model before: what came by topic does not.
            self._prompt = ''
            self._refuse_prompt(text)
            self._intake.again(outcome.frame)
            return
        if outcome.bad_frame:
            self._note_bad_input('bad frame', f'bad frame dropped: {text}')
            self._counters.add('bad frames')
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
            while not self._is_fresh(self._intake.newest) and time.monotonic() < deadline_s:
                self._outcome_changed.wait(_DESCRIBE_LOOK_UP_S)
                if self._session != session or self._worker is None:
                    return False, 'the node was deactivated meanwhile'
            wanted = self._intake.newest
            if not self._is_fresh(wanted):
                return False, (f'no frame within {_DESCRIBE_PATIENCE_S:.0f} s: '
                               f'{self._input_status(time.monotonic()).message}')
            before = self._outcome
            if before is not None and before.frame is wanted:
                if before.options == self._options():
                    return _answer(before)
                self._intake.again(wanted)  # its captions are those of older options
            self._worker.hurry()
            while True:
                outcome = self._outcome
                if self._session != session:
                    return False, 'the node was deactivated meanwhile'
                if outcome is not None and outcome is not before and (
                        outcome.frame.arrived_s >= wanted.arrived_s):
                    return _answer(outcome)
                self._outcome_changed.wait(_DESCRIBE_LOOK_UP_S)

    def _is_fresh(self, frame: Frame | None) -> bool:
        return frame is not None and (
            time.monotonic() - frame.arrived_s <= self._settings.stale_after_s)

    # Health

    def _warn(self, kind: str, text: str) -> None:
        """Log a warning, each kind now and then only."""
        now_s = time.monotonic()
        if now_s - self._warned_s.get(kind, float('-inf')) >= _WARN_PERIOD_S:
            self._warned_s[kind] = now_s
            self.get_logger().warning(text)

    def _note_bad_input(self, kind: str, text: str) -> None:
        self._input_trouble.note(text, time.monotonic())
        self._warn(kind, text)

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            statuses = [self._model_status(), self._input_status(now_s, sample=True),
                        self._inference_status(now_s)]
            hardware_id = self._captioner.device if self._captioner is not None else 'none'
        self._diagnostics.publish(diagnostics_msg(
            statuses, self.get_name(), hardware_id, self.get_clock().now().to_msg()))

    def _model_status(self) -> Status:
        captioner = self._captioner
        details = {} if captioner is None else {
            'family': captioner.family, 'device': captioner.device, 'dtype': captioner.dtype,
            'focus modes': ', '.join(captioner.focus_modes),
            'filter': getattr(captioner, 'filter_name', 'none')}
        return model_status(self._state, self._settings.model, details, self._model_problem)

    def _input_status(self, now_s: float, sample: bool = False) -> Status:
        counts = self._counters.all() | self._intake.counts()
        rises = self._recent.add(counts) if sample else dict.fromkeys(counts, 0)
        images, masks, intake = self._images, self._masks, self._intake
        lost = rises['images lost in transport'] + rises['masks lost in transport']
        arrived = rises['images received'] + rises['masks received']
        since_image_s = None if intake.last_image_s is None else now_s - intake.last_image_s
        values = {name: str(counts[name]) for name in (
            'images received', 'masks received', 'bad frames', 'images with stamp 0',
            'masks scaled', 'frames replaced by a newer one', 'images lost in transport',
            'masks lost in transport', *intake.counts())}
        values['image rate Hz'] = f'{rises["images received"] / self._recent.span:.1f}'
        values['last bad frame'] = self._input_trouble.text
        for name, subscription in (('image', images), ('mask', masks)):
            if subscription is not None:
                values[f'{name} topic'] = subscription.topic
                values[f'{name} publishers'] = str(subscription.publishers)
                values[f'{name} reliability'] = ('reliable' if subscription.reliable
                                                 else 'best effort')
        settings = self._settings
        best_effort = images is not None and images.best_effort_publishers > 0
        status = input_status(
            active=self._state == 'active', topic=images.topic if images is not None else '',
            publishers=images.publishers if images is not None else 0,
            since_image_s=since_image_s, stale_after_s=settings.stale_after_s,
            lost=lost if lost > LOST_SHARE * (lost + arrived) else 0,
            transport_hint=transport_hint(best_effort), trouble=self._input_trouble,
            now_s=now_s, values=values)
        if status.level is not Level.OK or masks is None:
            return status
        problem = mask_problem(
            describe=settings.options.describe, topic=masks.topic, publishers=masks.publishers,
            mask_timeout_s=settings.mask_timeout_s, mask_slop_s=settings.mask_slop_s,
            rises=rises)
        return replace(status, level=Level.WARN, message=problem) if problem else status

    def _inference_status(self, now_s: float) -> Status:
        counts = self._counters.all()
        values = {name: str(counts[name]) for name in (
            'frames captioned', 'captions published', 'captions held back', 'model failures',
            'results dropped after deactivation', 'prompts refused')}
        values |= {name: str(count) for name, count in self._telling.counts().items()}
        if self._latencies_s:
            values['median latency s'] = f'{statistics.median(self._latencies_s):.3f}'
            values['median age s'] = f'{statistics.median(self._ages_s):.3f}'
        values['failures in a row'] = str(self._failures_in_a_row)
        return inference_status(
            active=self._state == 'active', captioned=counts['frames captioned'],
            failures_in_a_row=self._failures_in_a_row, trouble=self._inference_trouble,
            now_s=now_s, values=values)


def _one_line(error: Exception | None) -> str:
    """Return an error as one line; with its type when it is not one of the package's own."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ''
    return text if isinstance(error, CaptionRosError) else f'{type(error).__name__}: {text}'


def _answer(outcome: Outcome) -> tuple[bool, str]:
    if outcome.error is not None:
        return False, _one_line(outcome.error)
    if outcome.captions and not outcome.said:
        best = max(caption.match or 0.0 for caption in outcome.captions)
        return False, (f'the filter held back all {len(outcome.captions)} captions: the best '
                       f'match is {best:.2f}, wanted {outcome.options.filter_threshold:.2f}')
    return True, caption_text(outcome.said)


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    run_node(CaptionNode, args)


if __name__ == '__main__':
    main()
