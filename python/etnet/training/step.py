"""One optimizer step, in one or several parts, and the choice of its number format."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from etnet.config.schema import Recipe
from etnet.data.loader import Batch
from etnet.errors import CheckFailed, EnvironmentFault, UsageError
from etnet.inference.backends.torch_backend import Precision, is_out_of_memory
from etnet.losses import EdgeSupervisedLoss
from etnet.training.distributed import ProcessGroup
from etnet.training.whole_batch import is_mean_over_images, whole_batch


@dataclass(frozen=True)
class StepResult:
    """Losses and gradient norm of one step, as plain numbers."""

    loss: float
    seg_loss: float
    edge_loss: float
    gradient_norm: float


class NotFinite(CheckFailed):
    """A step whose loss or gradient is not finite; the weights were not updated.

    Attributes:
        batch: What the step was given.
        result: Its losses and gradient norm.
    """

    def __init__(self, message: str, *, batch: Batch, result: StepResult) -> None:
        super().__init__(message)
        self.batch, self.result = batch, result


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


class Stepper:
    """Everything that one optimizer step touches: network, loss, optimizer, number format.

    Args:
        network: A network of `etnet.models` on its device.
        recipe: Its loss, optimizer and training sections are used.
        optimizer: Made over the network's parameters.
        device: Where the network lives.
        group: The processes that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        recipe: Recipe,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        group: ProcessGroup,
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
            deep_weight=recipe.loss.deep_weight,
            classes=recipe.loss.classes,
            per_image=recipe.loss.per_image,
            ignore_index=recipe.data.ignore_index,
            method=recipe.loss.method,
        )
        contract = recipe.contract()
        self.mean = torch.tensor(contract.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(contract.std, device=device).view(1, 3, 1, 1)

    def run(self, batch: Batch, learning_rate: float, *, alpha: float | None = None) -> StepResult:
        """Forward and backward on one batch, in `training.accumulate` parts, and one update.

        Args:
            batch: Crops with their masks and edges.
            learning_rate: That of this step.
            alpha: Share of the regions in the loss of this step; the recipe's `loss.alpha` unless given.

        Raises:
            NotFinite: The loss or its gradient is not finite; the weights are not updated, the samples are named.
            EnvironmentFault: The device has too little memory.
        """
        try:
            return self._run(batch, learning_rate, alpha)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            count, _, height, width = batch.images[: len(batch.ids) // self.parts].shape
            raise EnvironmentFault(
                f"{self.device} has too little memory to train on {count} crops of {height}x{width} pixels at once; "
                "lower --batch-size or --set data.crop_size, raise training.accumulate, or take a smaller "
                "model.encoder; "
                "a checkpoint saved before stays"
            ) from error

    def _run(self, batch: Batch, learning_rate: float, alpha: float | None) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        parts = _parts_of(batch, self.parts)
        losses = [self._backward(part, alpha, last=part is parts[-1]) for part in parts]
        self.scaler.unscale_(self.optimizer)
        numbers = torch.cat([torch.stack(losses).mean(0), self._gradient_norm().view(1)])
        result = StepResult(*self.group.mean(numbers).tolist())
        self._require_finite(result, batch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    def _backward(self, part: Batch, alpha: float | None, *, last: bool) -> Tensor:
        """Add the gradient of one part of the batch; its losses [3], float32: total, regions, edges."""
        masks = part.masks.to(self.device, non_blocking=True)
        edges = part.edges.to(self.device, non_blocking=True)
        with self._exchanging(last):
            with self._autocast():
                output = self.network(self._normalise(part.images))
            if self.joins_parts:
                output, masks, edges = whole_batch(output, masks, edges)
            terms = self.criterion(output, masks, edges, alpha=alpha)
            self.scaler.scale(terms.total / self.parts).backward()
        return torch.stack([term.detach().float() for term in terms])

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Processes that train together exchange gradients once per step, with the last part."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))

    def _normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] to float32 on the device; 8-bit images cross the bus at a quarter of the size."""
        images = images.to(self.device, non_blocking=True).float()
        return ((images - self.mean) / self.std).to(memory_format=torch.channels_last)

    def _gradient_norm(self) -> Tensor:
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return norm

    def _require_finite(self, result: StepResult, batch: Batch) -> None:
        # With loss scaling an infinite gradient is routine: the scaler skips the step and lowers its scale.
        checked = (result.loss,) if self.scaler.is_enabled() else (result.loss, result.gradient_norm)
        if not all(torch.isfinite(torch.tensor(checked))):
            raise NotFinite(
                f"the loss is {result.loss} with gradient norm {result.gradient_norm} for samples "
                f"{', '.join(dict.fromkeys(batch.ids))}; look at these images, lower optimizer.base_lr, "
                "or set optimizer.clip_gradient_norm: 1.0",
                batch=batch,
                result=result,
            )


def _parts_of(batch: Batch, count: int) -> list[Batch]:
    size = len(batch.ids) // count
    cuts = [slice(start, start + size) for start in range(0, len(batch.ids), size)]
    return [Batch(batch.ids[cut], batch.images[cut], batch.masks[cut], batch.edges[cut]) for cut in cuts]
