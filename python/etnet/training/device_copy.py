"""Batches to the device, on a stream of their own, so that a copy runs beside the step before it."""

from __future__ import annotations

import torch

from etnet.data.loader import Batch


class DeviceCopies:
    """Copies batches to a device in the order in which they come.

    The host hands steps to a GPU some steps ahead of it (`Stepper`), so that the copy of a batch is asked for while an
    earlier step is still computed. On the stream of the steps it would wait for them; on its own it does not, and the
    step waits for its copy alone. With the pinned batch on the host and its copy this is a double buffer. On other
    devices than CUDA a copy is an ordinary one, and none where the batch is there already.

    Args:
        device: Where batches go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, batch: Batch) -> Batch:
        """The batch on the device, ready for the current stream; types and memory layout stay."""
        if self._stream is None:
            return self._moved(batch)
        steps = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            moved = self._moved(batch)
        steps.wait_stream(self._stream)
        for tensor in (moved.images, moved.masks, moved.edges):
            # Its memory belongs to the side stream, which must not give it away before the steps are done with it.
            tensor.record_stream(steps)
        return moved

    def _moved(self, batch: Batch) -> Batch:
        images, masks, edges = (
            tensor.to(self._device, non_blocking=True) for tensor in (batch.images, batch.masks, batch.edges)
        )
        return Batch(batch.ids, images, masks, edges)
