# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Many recordings: captioned on Ray, indexed, searched."""
