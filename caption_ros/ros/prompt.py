# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The prompt that comes by topic, in the place of the parameter's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from std_msgs.msg import String

from caption_ros.captioner import CaptionOptions
from caption_ros.errors import OptionError


class Prompt:
    """Listens to the topic ``prompt`` while the node is active.

    Args:
        node: Node that subscribes.
        lock: Held by whoever starts, stops or takes back.
        options: Returns the options by the parameters.
        refuse: Takes what is wrong with a prompt.
        group: Group of the callback.

    Attributes:
        text: The prompt; empty for that of the parameter.
    """

    def __init__(self, node: Node, lock: AbstractContextManager[Any],
                 options: Callable[[], CaptionOptions], refuse: Callable[[str], None],
                 group: CallbackGroup) -> None:
        self._node = node
        self._lock = lock
        self._options = options
        self._refuse = refuse
        self._group = group
        self._subscription: Any = None
        self.text = ''

    def start(self) -> None:
        """Listen from now on."""
        self._subscription = self._node.create_subscription(
            String, 'prompt', self._on_prompt, 10, callback_group=self._group)

    def stop(self) -> None:
        """Listen no more, and forget the prompt."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription, self.text = None, ''

    def options(self) -> CaptionOptions:
        """Return the options for the next frames."""
        prompt, options = self.text, self._options()
        return replace(options, prompt=prompt) if prompt else options

    def take_back(self, prompt: str, why: str) -> None:
        """Refuse a prompt that the model cannot use, unless another has come since."""
        if self.text == prompt:
            self.text = ''
            self._refuse(why)

    def _on_prompt(self, message: String) -> None:
        try:
            replace(self._options(), prompt=message.data)
        except OptionError as error:
            self._refuse(str(error))
            return
        with self._lock:
            if self._subscription is not None:  # else it was on its way at the end
                self.text = message.data
