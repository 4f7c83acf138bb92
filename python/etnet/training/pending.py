"""Numbers on their way from a device to the host, which does not wait for them."""

from __future__ import annotations

import torch
from torch import Tensor


class PendingNumbers:
    """A copy of a small tensor to the host, begun now and read later.

    On CUDA it goes through pinned memory, and an event behind it says when it has arrived; until `read`, the host
    waits for nothing.

    Args:
        numbers: Floating point [N]; on the CPU it is kept as it is.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._numbers = numbers
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            # Sleeps while it waits: spinning would take a core from the processes that load data.
            self._arrived = torch.cuda.Event(blocking=True)
            self._arrived.record(torch.cuda.current_stream(numbers.device))

    def read(self) -> list[float]:
        """The numbers; waits until they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._numbers.tolist()
        return values
