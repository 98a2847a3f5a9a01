# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The parameters that caption_node works by now, and whether a change may be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rclpy.node import Node

from caption_ros.captioner import Captioner, CaptionOptions, check_focus, check_prompt
from caption_ros.errors import OptionError
from caption_ros.ros.parameters import (
    NODE_PARAMETERS,
    NodeParameters,
    declare,
    problems,
    unconfigured_only,
    values_of,
)

_TOGETHER = 'values that do not go together'


class Settings:
    """Declares the node's parameters and reads them.

    Args:
        node: Node that they are of.

    Attributes:
        now: The parameters; defaults stand in for start-up values that are not allowed.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._refused = declare(node, NODE_PARAMETERS)
        self.now = self._read()

    @property
    def refused(self) -> str:
        """What is wrong with start-up values not changed since, alone or together; or empty."""
        return '; '.join(self._refused.values())

    def apply(self, names: Iterable[str]) -> None:
        """Read the parameters anew after some were set.

        Args:
            names: Which.
        """
        for name in names:
            self._refused.pop(name, None)
        self.now = self._read()

    def problems(self, changes: Mapping[str, Any], state: str, captioner: Captioner | None,
                 ) -> list[str]:
        """Say why values may not be set, one sentence each.

        Args:
            changes: Values by name.
            state: State of the node.
            captioner: Its model, if it has one.
        """
        found = problems(changes)
        if state != 'unconfigured':
            found += [f'{name} can be changed only while the node is unconfigured, and it is '
                      f'{state}: clean it up first' for name, value in changes.items()
                      if unconfigured_only(name)
                      and value != self._node.get_parameter(name).value]
        if found:
            return found
        try:
            after = NodeParameters.from_values(
                values_of(self._node, NODE_PARAMETERS) | dict(changes))
            if captioner is not None:
                check_options(captioner, after.options)
        except OptionError as error:
            return [str(error)]
        return []

    def _read(self) -> NodeParameters:
        values = values_of(self._node, NODE_PARAMETERS)
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


def check_options(captioner: Captioner, options: CaptionOptions) -> None:
    """Raise OptionError where a model cannot do what is asked of it."""
    check_focus(captioner, options.focus)
    check_prompt(captioner, options.prompt)
