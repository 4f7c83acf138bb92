"""Resizing of images and masks, one rule for training and prediction."""

from __future__ import annotations

import cv2
import numpy as np

from etnet.types import UInt8Array


def resize_image(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resizes [H, W, 3] to (height, width) as training and prediction both do: area average down, linear up."""
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    shrinks = height * width < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def resize_mask(mask: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resizes class indices [H, W] to (height, width) by the nearest pixel."""
    if mask.shape == tuple(size):
        return mask
    return np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8)
