# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the bytes of a message lie, so that types that only renamed a field are known as equal.

The hash of a type covers the names of its fields, its serialized messages do not: CameraInfo's
D, K, R, P became d, k, r, p, and recordings of both kinds are the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

_SEQUENCE = re.compile(r'sequence<(.*?)(?:, \d+)?>')
_ARRAY = re.compile(r'(.*)\[(\d+)\]')
_BASE = {'double': 'float64', 'float': 'float32', 'boolean': 'bool', 'octet': 'uint8',
         'byte': 'uint8', 'char': 'uint8'}
_NO_FIELD = 'structure_needs_at_least_one_member'
_IDL = 80 * '=' + '\nIDL: '


def recorded_layout(msgtype: str, definition: str) -> str:
    """Return the layout of a type by the definition in a recording.

    Raises:
        Exception: If the definition cannot be read; rosbags has several kinds.
    """
    types = get_typestore(Stores.EMPTY)
    if definition.startswith(_IDL):
        for part in definition.split(80 * '=' + '\n')[1:]:
            types.register(get_types_from_idl(part.split('\n', 1)[1]))
    else:
        types.register(get_types_from_msg(definition, msgtype))

    def of(node: Any) -> str:
        kind, inner = node
        if kind == Nodetype.BASE:
            return _BASE.get(inner[0], inner[0])
        if kind == Nodetype.NAME:
            return _struct((name, of(field)) for name, field in types.fielddefs[inner][1])
        return f'{of(inner[0])}[{inner[1] if kind == Nodetype.ARRAY else ""}]'
    return of((Nodetype.NAME, msgtype))


def installed_layout(kind: Any, find: Callable[[str], Any]) -> str:
    """Return the layout of an installed message class.

    Args:
        kind: The class.
        find: Returns the class of a type name such as std_msgs/msg/Header.
    """
    def of(text: str) -> str:
        if found := _ARRAY.fullmatch(text):
            return f'{of(found[1])}[{found[2]}]'
        if found := _SEQUENCE.fullmatch(text):
            return f'{of(found[1])}[]'
        if '/' in text:
            return installed_layout(find(text.replace('/', '/msg/')), find)
        text = text.split('<')[0]  # a bounded string
        return _BASE.get(text, text)
    return _struct((name, of(text)) for name, text in kind.get_fields_and_field_types().items())


def _struct(fields: Any) -> str:
    return f'({" ".join(layout for name, layout in fields if name != _NO_FIELD)})'
