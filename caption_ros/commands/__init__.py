# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One module a command of ``caption-ros``."""
