# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Timing of the package against the code that tutorials publish."""
