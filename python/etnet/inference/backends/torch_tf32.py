"""Whether an NVIDIA GPU rounds the inputs of torch's float32 products to tf32, for as long as a block runs.

tf32 has the range of float32 and 10 of its 23 bits of fraction. Out of the box torch rounds in the convolutions of
cuDNN and not in matrix products. The setting is one for the whole process: blocks of several threads share it, and what
other code of the process computes meanwhile is computed by it too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class _Settings:
    """What torch was told about float32 products.

    Where somebody chose for single operations by name, torch refuses to tell some of it, which is then None and left
    alone.

    Attributes:
        convolutions: `allow_tf32` of cuDNN.
        products: `allow_tf32` of matrix products.
        precision: That of `torch.set_float32_matmul_precision`.
        names: `fp32_precision` of `_operations`.
    """

    convolutions: bool | None
    products: bool | None
    precision: str | None
    names: tuple[str, ...]

    @classmethod
    def now(cls) -> _Settings:
        return cls(
            _told(lambda: torch.backends.cudnn.allow_tf32),
            _told(lambda: torch.backends.cuda.matmul.allow_tf32),
            _told(torch.get_float32_matmul_precision),
            tuple(operation.fp32_precision for operation in _operations()),
        )

    def replace_by(self, allowed: bool) -> None:
        """Allow tf32 everywhere, or nowhere."""
        # The flags too: torch.compile reads them, and fails where they and the names differ.
        _set_flags(
            None if self.convolutions is None else allowed,
            None if self.products is None else allowed,
        )
        for operation in _operations():
            operation.fp32_precision = "tf32" if allowed else "ieee"

    def restore(self) -> None:
        """Set torch as it was."""
        _set_flags(self.convolutions, self.products)
        if self.precision == "medium":
            # The one choice that the flag of matrix products does not hold.
            torch.set_float32_matmul_precision("medium")
        flags = (self.convolutions, self.products)
        for operation, name, flag in zip(_operations(), self.names, flags, strict=False):
            if flag is None or operation.fp32_precision != name:
                # What follows a choice for all operations goes on following it.
                operation.fp32_precision = "none"
            if operation.fp32_precision != name:
                operation.fp32_precision = name


def _set_flags(convolutions: bool | None, products: bool | None) -> None:
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions
    if products is not None:
        torch.backends.cuda.matmul.allow_tf32 = products


def _told(ask: Callable[[], _Answer]) -> _Answer | None:
    try:
        return ask()
    except RuntimeError:
        return None


def _operations() -> tuple[Any, ...]:
    """The operations for which torch lets one choose by name, which it does since version 2.9."""
    cudnn: Any = torch.backends.cudnn
    return (cudnn.conv, torch.backends.cuda.matmul) if hasattr(cudnn, "conv") else ()


class _Turns:
    """Lends the setting to blocks: those that want the same have it together, others wait until these have left."""

    def __init__(self) -> None:
        self._left = threading.Condition()
        self._inside = 0
        self._allowed: bool | None = None
        self._former: _Settings | None = None

    @contextmanager
    def take(self, allowed: bool | None) -> Iterator[None]:
        """See `tf32_allowed`."""
        with self._left:
            self._left.wait_for(lambda: not self._inside or self._allowed == allowed)
            if not self._inside:
                self._allowed, self._former = allowed, None if allowed is None else _Settings.now()
                if self._former is not None and allowed is not None:
                    self._former.replace_by(allowed)
            self._inside += 1
        try:
            yield
        finally:
            with self._left:
                self._inside -= 1
                if not self._inside:
                    if self._former is not None:
                        self._former.restore()
                    self._left.notify_all()


tf32_allowed = _Turns().take
"""A block in which float32 products may (True) or must not (False) be rounded to tf32, or, with None, are computed as
torch is set. Afterwards torch is set as before the first of the blocks that ran together."""
