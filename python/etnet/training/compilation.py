"""`training.compile`: a step's network and loss through torch.compile, or as they are where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import nn

_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")


class StepCompiler:
    """Compiles what a step computes when it first runs, and steps back from it for good if that fails.

    The network is not wrapped: its state dictionary keeps its names, and copies of it and its validation stay as they
    are. Every batch of a run has the same shape, so one graph is enough.

    What this leaves out: CUDA graphs (`mode="reduce-overhead"`). They save the time in which the host launches kernels,
    but the host is ahead of the GPU anyway; they cost a second pool of memory, and no address of a step may change.

    Args:
        network: What a step changes beside gradients are its buffers, which a failed attempt may have touched.
        report: Is told in one sentence when compiling failed.
    """

    def __init__(self, network: nn.Module, report: Callable[[str], None]) -> None:
        self._network, self._report = network, report
        self._is_proven = False

    def compile(self, function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """The function as it runs inside of `run`."""
        return torch.compile(function, dynamic=False)

    def run(self, step: Callable[[], _Result], *, without: Callable[[], _Result]) -> _Result:
        """What `step` gives; if it cannot be compiled, all that it changed is undone, and it is what `without` gives.

        Args:
            step: Forward and backward pass with the compiled function.
            without: Puts the function as it was in its place, and does the same; from then on it is not called again.
        """
        if self._is_proven:
            return step()
        from torch._dynamo.exc import TorchDynamoException

        before = [buffer.clone() for buffer in self._network.buffers()]
        try:
            result = step()
        except TorchDynamoException as error:
            self._report(
                f"torch.compile failed ({_reason(error)}); training goes on without it, as with training.compile=false"
            )
            with torch.no_grad():
                for buffer, value in zip(self._network.buffers(), before, strict=True):
                    buffer.copy_(value)
            return without()
        self._is_proven = True
        return result


def _reason(error: Exception) -> str:
    """What torch says first, without the pages that follow: `backend='inductor' raised:` goes on for one more line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
