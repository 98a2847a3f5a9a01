# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page on which one paints on a picture and sees what a model says of it."""
