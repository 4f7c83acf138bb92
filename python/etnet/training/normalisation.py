"""8-bit images to what the network reads."""

from __future__ import annotations

import cv2
import torch
from torch import Tensor

from etnet.types import Contract


class Normalisation:
    """Subtracts the mean of each channel and divides by its standard deviation.

    On a processor a table of what the 256 bytes become does it in one pass over the images, with the same bits as the
    arithmetic. Compiled code computes, because a compiler joins that with what follows.

    Args:
        contract: Names mean and standard deviation, of channels in 0..255.
        device: Where the images are.
    """

    def __init__(self, contract: Contract, device: torch.device) -> None:
        self._mean = torch.tensor(contract.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(contract.std, device=device).view(1, 3, 1, 1)
        every_byte = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 1, 256).expand(1, 3, 1, 256)
        self._table = self._computed(every_byte).view(3, 256).T[None].cpu().contiguous().numpy()

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to float32 of that shape, channels last, on the same device."""
        if images.device.type == "cpu" and not torch.compiler.is_compiling():
            return self._looked_up(images)
        return self._computed(images).to(memory_format=torch.channels_last)

    def _computed(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).sub_(self._mean).div_(self._std)

    def _looked_up(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        # OpenCV looks up one picture; a batch is one of many rows.
        rows = images.permute(0, 2, 3, 1).reshape(count * height, width, 3).numpy()
        normalised = torch.from_numpy(cv2.LUT(rows, self._table))
        return normalised.view(count, height, width, 3).permute(0, 3, 1, 2)
