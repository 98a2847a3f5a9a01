# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Joint fine-tuning of an encoder-decoder on images, masks and captions, and its scores."""
