"""One optimizer step, in one or several parts, and the choice of its number format.

On a GPU the host only hands out work and never waits for the step that it has just handed out: the numbers of a step
are read `DELAY` steps later. So the device itself has to see that a step is not finite: from then on it leaves out all
updates, this step's and those handed out before the host hears of it, and the weights stay those that met the bad
batch. On a CPU each step is read, and checked, before it updates anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from etnet.config.schema import Recipe
from etnet.data.loader import Batch
from etnet.errors import CheckFailed, OutOfMemory, UsageError
from etnet.inference.backends.torch_backend import Precision, is_out_of_memory
from etnet.losses import EdgeSupervisedLoss, LossTerms
from etnet.training.compilation import StepCompiler
from etnet.training.device_copy import DeviceCopies
from etnet.training.distributed import ProcessGroup
from etnet.training.normalisation import Normalisation
from etnet.training.pending import PendingNumbers
from etnet.training.stages import stage
from etnet.training.whole_batch import is_mean_over_images, whole_batch

DELAY = 2
"""Steps that a GPU may lag behind the host: with one at work and one waiting it is never idle."""


@dataclass(frozen=True)
class StepResult:
    """Losses and gradient norm of one step, as plain numbers."""

    loss: float
    seg_loss: float
    edge_loss: float
    gradient_norm: float


@dataclass(frozen=True)
class FinishedStep:
    """A step whose numbers are known.

    Attributes:
        iteration: What its caller called it.
        learning_rate: That it was given.
        result: Its losses and gradient norm.
    """

    iteration: int
    learning_rate: float
    result: StepResult


class NotFinite(CheckFailed):
    """A step whose loss or gradient is not finite; the weights were not updated.

    Attributes:
        batch: What the step was given, on the CPU.
        result: Its losses and gradient norm.
        iteration: What its caller called it.
    """

    def __init__(self, message: str, *, batch: Batch, result: StepResult, iteration: int) -> None:
        super().__init__(message)
        self.batch, self.result, self.iteration = batch, result, iteration


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """The number format that the network's forward pass runs in.

    `auto` is bfloat16 on a GPU that has it, float16 on an older one, and float32 on a CPU.

    Raises:
        UsageError: float16 is asked for on a CPU, where its gradients underflow without a GPU's loss scaling.
    """
    if precision == "auto":
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if precision == "float16" and device.type != "cuda":
        raise UsageError("training.precision is float16 on a CPU; use bfloat16 or float32 there")
    return cast("Precision", precision)


@dataclass(frozen=True)
class _HandedOut:
    iteration: int
    learning_rate: float
    batch: Batch
    numbers: PendingNumbers

    def result(self) -> StepResult:
        return StepResult(*self.numbers.read())


class Stepper:
    """Everything that one optimizer step touches: network, loss, optimizer, number format.

    Args:
        network: A network of `etnet.models` on its device.
        recipe: Its loss, optimizer and training sections are used.
        optimizer: Made over the network's parameters.
        device: Where the network lives.
        group: The processes that train together.
        delay: Steps that may be handed out before the first of them is read; `DELAY` on CUDA and 0 elsewhere, unless
            given. Without a fused optimizer it is 0: others cannot leave out a step without asking the host.
        report: Is told, in a sentence, that the step could not be compiled (`training.compile`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        recipe: Recipe,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        group: ProcessGroup,
        delay: int | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.network = group.parallel(network, device)
        self.group = group
        self.optimizer = optimizer
        self.device = device
        self.parts = recipe.training.accumulate
        self.clip_norm = recipe.optimizer.clip_gradient_norm
        self.precision = resolve_precision(recipe.training.precision, device)
        self.joins_parts = not (group.is_alone or is_mean_over_images(recipe))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self.criterion = EdgeSupervisedLoss(
            alpha=recipe.loss.alpha,
            cross_entropy=recipe.loss.cross_entropy,
            classes=recipe.loss.classes,
            per_image=recipe.loss.per_image,
            ignore_index=recipe.data.ignore_index,
            method=recipe.loss.method,
        )
        # On the device: 8-bit images cross the bus at a quarter of the size.
        self.normalise = Normalisation(recipe.contract(), device)
        wanted = (DELAY if device.type == "cuda" else 0) if delay is None else delay
        self.delay = wanted if getattr(optimizer, "_step_supports_amp_scaling", False) else 0
        self._copies = DeviceCopies(device)
        self._compiler = StepCompiler(network, report) if recipe.training.compile else None
        self._terms = self._losses if self._compiler is None else self._compiler.compile(self._losses)
        self._handed_out: deque[_HandedOut] = deque()
        # 1 from the first step on that is not finite; the form in which fused optimizers take it.
        self._spoilt = torch.zeros((), device=device)

    def run(self, batch: Batch, learning_rate: float) -> StepResult:
        """One step, waited for: `submit` and `finished` in one.

        Args:
            batch: Crops with their masks and edges.
            learning_rate: That of this step.

        Raises:
            NotFinite: The loss or its gradient is not finite; the weights are not updated, the samples are named.
            OutOfMemory: The device has too little memory.
        """
        self.submit(batch, learning_rate)
        *_, last = self.finished(wait=True)
        return last.result

    def submit(self, batch: Batch, learning_rate: float, *, iteration: int = 0) -> None:
        """Forward and backward on one batch, in `training.accumulate` parts, and one update; `finished` tells of it.

        Args:
            batch: Crops with their masks and edges, of integer types.
            learning_rate: That of this step.
            iteration: What the step is called in what `finished` tells.

        Raises:
            NotFinite: Where nothing is delayed; see `finished`.
            OutOfMemory: The device has too little memory.
        """
        try:
            self._run(batch, learning_rate, iteration)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            count, _, height, width = batch.images[: len(batch.ids) // self.parts].shape
            raise OutOfMemory(
                f"{self.device} has too little memory to train on {count} crops of {height}x{width} pixels at once; "
                "lower --batch-size or --set data.crop_size, raise training.accumulate, or take a smaller "
                "model.encoder; "
                "a checkpoint saved before stays"
            ) from error

    def finished(self, *, wait: bool = False) -> Iterator[FinishedStep]:
        """The steps that can be read, in their order, each once.

        Args:
            wait: Read all that were handed out; otherwise those that lie `delay` steps back. Which ones these are
                depends on no clock, so that processes that train together read the same ones.

        Raises:
            NotFinite: A step was not finite. Neither it nor a later one has updated the weights.
        """
        while len(self._handed_out) > (0 if wait else self.delay):
            step = self._handed_out.popleft()
            result = step.result()
            self._require_finite(result, step)
            yield FinishedStep(step.iteration, step.learning_rate, result)

    def _run(self, batch: Batch, learning_rate: float, iteration: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with stage("copy to device"):
            batch = self._copies.copy(batch)
        parts = _parts_of(batch, self.parts)
        losses = self._gradients(parts)
        with stage("optimizer"):
            self.scaler.unscale_(self.optimizer)
            numbers = self.group.mean(torch.cat([torch.stack(losses).mean(0), self._gradient_norm().view(1)]))
        step = _HandedOut(iteration, learning_rate, batch, PendingNumbers(numbers))
        if not self.delay:
            self._require_finite(step.result(), step)
        with stage("optimizer"):
            if self.delay:
                self._update_if_finite(numbers)
            else:
                self.scaler.step(self.optimizer)
            self.scaler.update()
        self._handed_out.append(step)

    def _update_if_finite(self, numbers: Tensor) -> None:
        """Update the weights unless this step or one before it is not finite; the device decides."""
        bad = (~numbers.isfinite()).to(self._spoilt.dtype)
        loss, gradient = bad[0], bad[-1]
        # An infinite gradient ends the run like an infinite loss, but not under loss scaling, which goes on after it.
        lasting = loss if self.scaler.is_enabled() else torch.maximum(loss, gradient)
        self._spoilt = torch.maximum(self._spoilt, lasting)
        # As GradScaler does it: fused optimizers read these two attributes. Its own `step` knows no loss.
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.found_inf = torch.maximum(self._spoilt, gradient)  # type: ignore[attr-defined]
        self.optimizer.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf  # type: ignore[attr-defined]

    def _gradients(self, parts: list[Batch]) -> list[Tensor]:
        """Gradients of all parts, in the parameters, and the losses of each."""

        def compute() -> list[Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            return [self._backward(part, last=part is parts[-1]) for part in parts]

        def compute_as_written() -> list[Tensor]:
            self._compiler, self._terms = None, self._losses
            return compute()

        return compute() if self._compiler is None else self._compiler.run(compute, without=compute_as_written)

    def _backward(self, part: Batch, *, last: bool) -> Tensor:
        """Add the gradient of one part of the batch; its losses [3], float32: total, regions, edges."""
        with self._exchanging(last):
            # Compiled code has no stages within.
            with stage("forward") if self._compiler is not None else nullcontext():
                terms = self._terms(part.images, part.masks, part.edges)
            with stage("backward"):
                self.scaler.scale(terms.total / self.parts).backward()
        return torch.stack([term.detach().float() for term in terms])

    def _losses(self, images: Tensor, masks: Tensor, edges: Tensor) -> LossTerms:
        with stage("forward"), self._autocast():
            output = self.network(self.normalise(images))
        with stage("loss"):
            if self.joins_parts:
                output, masks, edges = whole_batch(output, masks, edges)
            terms: LossTerms = self.criterion(output, masks, edges)
        return terms

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Processes that train together exchange gradients once per step, with the last part."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    def _gradient_norm(self) -> Tensor:
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return norm

    def _require_finite(self, result: StepResult, step: _HandedOut) -> None:
        # With loss scaling an infinite gradient is routine: the scaler skips the step and lowers its scale.
        checked = (result.loss,) if self.scaler.is_enabled() else (result.loss, result.gradient_norm)
        if all(map(math.isfinite, checked)):
            return
        # The steps behind it were left out; what they were given says nothing.
        self._handed_out.clear()
        ids, images, masks, edges = step.batch
        raise NotFinite(
            f"the loss is {result.loss} with gradient norm {result.gradient_norm} for samples "
            f"{', '.join(dict.fromkeys(ids))}; look at these images, lower optimizer.base_lr, "
            "or set optimizer.clip_gradient_norm: 1.0",
            batch=Batch(ids, images.cpu(), masks.cpu(), edges.cpu()),
            result=result,
            iteration=step.iteration,
        )


def _parts_of(batch: Batch, count: int) -> list[Batch]:
    size = len(batch.ids) // count
    cuts = [slice(start, start + size) for start in range(0, len(batch.ids), size)]
    return [Batch(batch.ids[cut], batch.images[cut], batch.masks[cut], batch.edges[cut]) for cut in cuts]
