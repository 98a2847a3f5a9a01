# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""caption_node: captions of camera images and of the regions that a segmenter marks.

A lifecycle node: configuring loads the model, activating subscribes, cleaning up frees the
model. Subscriptions only hand messages on; one thread converts, another captions and hands over.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from caption_ros.captioner import Captioner
from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.devices import device_label
from caption_ros.captioners.gpu_figures import GpuFigures
from caption_ros.errors import OptionError, first_line
from caption_ros.health import Status, model_status
from caption_ros.inference import InferenceHealth
from caption_ros.mailbox import Mailbox
from caption_ros.message import stamp_to_ns
from caption_ros.ros import process_memory
from caption_ros.ros.camera import Camera
from caption_ros.ros.describing import Describing
from caption_ros.ros.diagnostics import diagnostics_msg
from caption_ros.ros.intake import Frame
from caption_ros.ros.look import Outcome
from caption_ros.ros.messages import captions_to_msgs
from caption_ros.ros.parameters import NodeParameters
from caption_ros.ros.pointing import optional_msgs
from caption_ros.ros.prompt import Prompt
from caption_ros.ros.reader import Reader
from caption_ros.ros.settings import Settings, check_options
from caption_ros.ros.sparse_log import SparseLog
from caption_ros.ros.spinning import run_node
from caption_ros.ros.worker import CaptionWorker

_FOLLOW_PERIOD_S = 0.25
_EXIT_TIMEOUT_S = 8.0


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
        self.settings = Settings(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.add_post_set_parameters_callback(self._on_parameters_set)

        self._lock = threading.RLock()  # of what transitions change and other threads read
        self._outcome_changed = threading.Condition(self._lock)
        self._state = 'unconfigured'
        self._session = 0
        self._captioner: Captioner | None = None
        self._gpu = GpuFigures('cpu')
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._worker: CaptionWorker | None = None
        self._problem = ''
        self._health = InferenceHealth()
        self._log = SparseLog(self.get_logger())

        # Not a lifecycle publisher: diagnostics are wanted most when the node is not active.
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)

        self._io_group = MutuallyExclusiveCallbackGroup()
        self._reader = Reader(self)
        self.cameras = {name: Camera(self, name, lambda: self.settings.now, self._log.warn,
                                     self._io_group, self._reader)
                        for name in self.settings.now.cameras}
        self.prompt = Prompt(self, self._lock, lambda: self.settings.now.options,
                             self._refuse_prompt, self._io_group)
        self._describing = Describing(
            self.cameras, self._outcome_changed, self.prompt.options,
            lambda: self.settings.now.stale_after_s,
            lambda: self._health.hang(self._in_work_s(time.monotonic())))
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

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        with self._lock:
            found = self.settings.problems({change.name: change.value for change in changes},
                                            self._state, self._captioner)
        return SetParametersResult(successful=not found, reason='; '.join(found))

    def _on_parameters_set(self, changes: list[Parameter]) -> None:
        with self._lock:
            self.settings.apply(change.name for change in changes)
            for camera in self.cameras.values():
                camera.intake.apply(self.settings.now)
                if self._state == 'active':
                    camera.subscribe()

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
            refused, parameters = self.settings.refused, self.settings.now
        mailbox: Mailbox[Frame] = Mailbox()
        worker = None
        try:
            if refused:
                raise OptionError(refused)
            worker = CaptionWorker(lambda: self._load(parameters), mailbox, self.prompt.options,
                                   lambda: self.settings.now, self._on_outcomes,
                                   self._on_worker_failed)
            captioner = worker.captioner()
            # Those of now: they may have been changed while it loaded.
            check_options(captioner, self.settings.now.options)
            gpu = GpuFigures(captioner.device)
        except Exception as error:  # whatever a model library raises, configure can be tried again
            if worker is not None and worker.close():
                worker.free()
            text = first_line(error)
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
            self._health.works()
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
                self.prompt.start()
                self._problem = ''
        except Exception as error:  # rclpy says nothing of what a transition raises
            self._stop_listening()
            super().on_deactivate(state)
            self._problem = f'cannot activate: {first_line(error)}'
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
            if hasattr(self, '_describing'):  # made last of what these two need
                self._stop_listening()
                self._free(_EXIT_TIMEOUT_S)
            if hasattr(self, '_reader'):
                self._reader.close()
        finally:
            super().destroy_node()

    def _stop_listening(self) -> None:
        with self._lock:
            if self._state == 'active':
                self._state = 'inactive'
            self._session += 1
            for camera in self.cameras.values():
                camera.stop()
            self._mailbox.take_all(0.0)
            self.prompt.stop()
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

    def _say_what_is_not_installed(self) -> None:
        if optional_msgs('vision_msgs') is None:
            self.get_logger().info('vision_msgs is not installed: no topics boxes, mask_labels '
                                   'and detections')
        if self.settings.now.people != 'none' and optional_msgs('hri_msgs') is None:
            self.get_logger().warning(f'people is {self.settings.now.people} and hri_msgs is not '
                                      'installed: nobody is followed')

    def _refuse_prompt(self, text: str) -> None:
        self._health.prompt_refused()
        for camera in self.cameras.values():
            camera.trouble.note(text, time.monotonic())
        self._log.warn('prompt', text)

    def _on_follow(self) -> None:
        with self._lock:
            for camera in self.cameras.values():
                camera.follow()

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
        text = f'a result could not be handed over: {first_line(error)}'
        with self._lock:
            self._health.lost(text, time.monotonic())
        self._log.warn('worker', text)

    def _publish(self, camera: Camera, outcome: Outcome) -> bool:
        """Publish the captions of an outcome; return True when they tell something new."""
        if outcome.scaled_mask:
            camera.counters.add('masks scaled')
            self._log.warn(camera.topic('mask size'), outcome.scaled_mask)
        if outcome.left_out:
            camera.counters.add('regions left out', outcome.left_out)
        header = outcome.frame.header
        stamp_ns = stamp_to_ns(header.stamp)
        with self._lock:
            if outcome.frame.session != self._session:
                self._health.dropped()
                return False
            last = camera.outcome
            again = (last is not None and last.frame.has_image_of(outcome.frame)
                     and not isinstance(last.error, OptionError))
            camera.outcome = outcome.without_pixels()
            self._outcome_changed.notify_all()
            if outcome.error is not None:
                self._note_failure(camera, outcome, outcome.error)
                # Where no region is left, what was there is gone.
                return outcome.bad_frame and outcome.regions == 0 and not again
            if outcome.unchanged:
                camera.counters.add('frames skipped as unchanged')
                return False
            self._health.works()
            captions = outcome.said
            if again or not outcome.captions or self._captioner is None:
                return False
            self._health.held_back(len(outcome.captions) - len(captions))
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
            self._health.published(len(captions), outcome.latency_s, age_s)
        return True

    def _note_failure(self, camera: Camera, outcome: Outcome, error: Exception) -> None:
        text, prompt = first_line(error), outcome.options.prompt
        if isinstance(error, OptionError) and prompt != self.settings.now.options.prompt:
            # The parameters suited the model before: what came by topic does not. It may have
            # been replaced since, or refused for another camera's frame.
            self.prompt.take_back(prompt, text)
            camera.intake.again(outcome.frame)
            return
        if outcome.bad_frame:
            camera.note('bad frame', f'bad frame dropped: {text}')
            camera.counters.add('bad frames')
            return
        self._health.failed(f'the model failed: {text}', time.monotonic())
        self._log.warn('model', f'the model failed, frame dropped: {text}')

    def _on_describe(self, _request: Trigger.Request, response: Trigger.Response,
                     ) -> Trigger.Response:
        response.success, response.message = self._describe()
        return response

    def _describe(self) -> tuple[bool, str]:
        with self._outcome_changed:
            if self._state != 'active' or self._worker is None:
                return False, f'the node is {self._state}, not active'
            session = self._session
            return self._describing.answer(self._worker, lambda: self._session != session)

    def _on_diagnostics(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            active = self._state == 'active'
            inputs = {name: camera.status(now_s, active=active, sample=True)
                      for name, camera in self.cameras.items()}
            for name, status in inputs.items():
                if not self.cameras[name].trouble.is_recent(now_s):  # else it was logged
                    self._log.look(status)
            statuses = [self._model_status(), *inputs.values(), self._inference_status(now_s)]
            hardware_id = ('none' if self._captioner is None
                           else device_label(self._captioner.device))
        self._diagnostics.publish(diagnostics_msg(
            statuses, self.get_name(), hardware_id, self.get_clock().now().to_msg()))

    def _model_status(self) -> Status:
        captioner = self._captioner
        if captioner is None:
            return model_status(self._state, self.settings.now.model, {}, self._problem)
        details = {
            'family': captioner.family, 'device': device_label(captioner.device),
            'dtype': captioner.dtype, 'focus modes': ', '.join(captioner.focus_modes),
            'filter': getattr(captioner, 'filter_name', 'none')}
        details |= captioner.facts() | self._gpu.read()
        return model_status(self._state, self.settings.now.model, details, self._problem,
                            captioner.problems())

    def _inference_status(self, now_s: float) -> Status:
        told: Counter[str] = Counter()
        for camera in self.cameras.values():
            told.update(camera.telling.counts())
        return self._health.status(active=self._state == 'active', now_s=now_s,
                                   in_work_s=self._in_work_s(now_s), told=told)

    def _in_work_s(self, now_s: float) -> float:
        """Return for how long the worker has been at one batch."""
        since_s = None if self._worker is None else self._worker.since_s
        return 0.0 if since_s is None else now_s - since_s


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    process_memory.heed_profile()
    try:
        run_node(partial(CaptionNode, load_captioner=process_memory.load_to_stay), args)
    finally:
        process_memory.let_go()


if __name__ == '__main__':
    main()
