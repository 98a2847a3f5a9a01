# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What tests need of the CPU."""

import pytest
import torch

from caption_ros.captioners.linears import can_pack

packs_bfloat16 = pytest.mark.skipif(not can_pack(torch.bfloat16),
                                    reason='this CPU cannot multiply bfloat16')
