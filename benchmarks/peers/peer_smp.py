"""segmentation_models_pytorch beside etnet: the Lovasz loss, a training step, and what a network costs.

    benchmarks/peers/.venvs/smp/bin/python benchmarks/peers/peer_smp.py --json FILE

The loss is the same function on both sides, which is checked: the multiclass one. The binary one of the package is the
Lovasz hinge, another function, which etnet does not have.

A training step is forward pass, loss, backward pass and Adam on crops of the recipe `drive`. Theirs is written as the
package's documentation does it: its network, its loss, torch's Adam, `loss.item()`. Ours is the `Stepper` of
`etnet train`: once with the same network (etnet's model.name=unet is the package's Unet), which compares the loops, and
once with ET-Net, which is another network and has a second loss, that of the edges.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import segmentation_models_pytorch as smp
import side_by_side
import torch
from bench_ops import Inputs
from measurement import Comparison, take_turns
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from etnet.config.schema import Recipe
from etnet.data.loader import Batch, build_training_loader
from etnet.models import build_model
from etnet.ops.lovasz import lovasz_softmax
from etnet.training.distributed import ALONE
from etnet.training.optimizer import build_optimizer
from etnet.training.step import Stepper

PACKAGE = "segmentation_models_pytorch"
VERSION = version(PACKAGE)
SMOKE = ("model.encoder=resnet18", "data.crop_size=64", "training.batch_size=2")


@dataclass(frozen=True)
class Setting:
    """What a run needs to know.

    Attributes:
        device: `cpu` or `cuda`.
        rounds: Rounds that count.
        smoke: Whether cases are tiny.
    """

    device: str
    rounds: int
    smoke: bool

    def turns(self, tasks: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Milliseconds of each task in each round."""
        waiting = {name: side_by_side.waiting(task, self.device) for name, task in tasks.items()}
        return take_turns(waiting, rounds=self.rounds)


def loss_rows(setting: Setting) -> list[Comparison]:
    """Loss and gradient, by sorting and by histogram, of scores as those of an untrained and of a trained network."""
    theirs = smp.losses.LovaszLoss(mode="multiclass", from_logits=True)
    ours = {
        "etnet, exact": lambda logits, target: lovasz_softmax(logits, target, method="sort"),
        "etnet, histogram": lambda logits, target: lovasz_softmax(logits, target, method="histogram"),
    }
    images, size = (1, 64) if setting.smoke else (16 if setting.device == "cuda" else 4, 512)
    rows = []
    for classes, kind in ((2, "random"), (2, "trained"), (5, "trained")):
        drawn = Inputs.draw([images, classes, size, size], setting.device, kind)
        logits, target = drawn.logits, drawn.target
        losses = {**ours, PACKAGE: theirs}
        found = {name: loss_and_gradient(loss, logits, target) for name, loss in losses.items()}
        exact = loss_and_gradient(formula, logits.detach().double().requires_grad_(), target)
        times = setting.turns({name: partial(loss_and_gradient, loss, logits, target) for name, loss in losses.items()})
        rows += [
            Comparison.of_rounds(
                (name, times[name]),
                (PACKAGE, times[PACKAGE]),
                version=VERSION,
                subject="Lovasz-Softmax, loss and gradient",
                case=f"{images}x{classes}x{size}x{size}, float32, {kind} scores",
                unit="ms",
                result=agreement(found[name], found[PACKAGE], exact),
            )
            for name in ours
        ]
    return rows


def loss_and_gradient(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Both of them."""
    logits.grad = None
    value = loss(logits, target)
    value.backward()
    if logits.grad is None:
        raise AssertionError("a loss without a gradient")
    return value.detach(), logits.grad


def formula(logits: Tensor, target: Tensor) -> Tensor:
    """The loss as the paper's algorithm computes it in plain torch; theirs does not run in float64."""
    return lovasz_softmax(logits, target, method="reference")


def agreement(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> str:
    """How far loss and gradient of both are from the formula in float64."""
    (loss, gradient), (other_loss, other_gradient) = errors(ours, exact), errors(theirs, exact)
    return (
        f"off the loss in float64 by {loss:.1g} of it, theirs by {other_loss:.1g}; off its gradient by {gradient:.1g} "
        f"of its norm, theirs by {other_gradient:.1g}"
    )


def errors(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Relative errors of loss and gradient."""
    apart = [float((part.double() - true).norm() / true.norm()) for part, true in zip(found, exact, strict=True)]
    return apart[0], apart[1]


@dataclass(frozen=True)
class Network:
    """One of the networks that are compared.

    Attributes:
        name: With its encoder.
        module: Itself, with random weights.
        parameters: Millions.
        gmacs: Thousand millions of multiplications for one image of the case's size.
    """

    name: str
    module: nn.Module
    parameters: float
    gmacs: float

    @staticmethod
    def of(name: str, module: nn.Module, size: int) -> Network:
        """Count a network for images of `size` x `size`."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            copy.deepcopy(module).eval()(torch.zeros(1, 3, size, size))
        parameters = sum(parameter.numel() for parameter in module.parameters()) / 1e6
        return Network(name, module, parameters, counter.get_total_flops() / 2e9)

    def __str__(self) -> str:
        return f"{self.name} {self.parameters:.1f} M parameters, {self.gmacs:.1f} GMAC"


def networks(recipe: Recipe) -> tuple[Network, Network]:
    """ET-Net of a recipe and the package's Unet with the same encoder."""
    encoder = recipe.model.encoder.split(".")[0]
    torch.manual_seed(0)
    classes, size = len(recipe.data.class_names), recipe.data.crop_size
    own = build_model(recipe.model, classes)
    other = smp.Unet(encoder, encoder_weights=None, classes=classes)
    return Network.of(f"ET-Net {encoder}", own, size), Network.of(f"Unet {encoder}", other, size)


def inference_row(setting: Setting, own: Network, other: Network, size: int) -> Comparison:
    """One forward pass of each network by the same means of torch."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, 3, size, size), generator=generator)
    image = image.to(setting.device).to(memory_format=torch.channels_last)

    def ready(network: Network) -> nn.Module:
        module = copy.deepcopy(network.module).eval().to(setting.device)
        return module.to(memory_format=torch.channels_last)

    modules = {network.name: ready(network) for network in (own, other)}
    with torch.inference_mode():
        times = setting.turns({name: partial(module, image) for name, module in modules.items()})
    return Comparison.of_rounds(
        (own.name, times[own.name]),
        (f"{other.name}, {PACKAGE}", times[other.name]),
        version=VERSION,
        subject="forward pass in torch",
        case=f"1x3x{size}x{size}, float32, channels last, {side_by_side.processor_or_gpu(setting.device)}",
        unit="ms",
        result=f"other networks: {own}; {other}",
    )


class PlainStep:
    """A training step of the package's network as its documentation writes it."""

    def __init__(self, network: nn.Module, recipe: Recipe, setting: Setting, *, bfloat16: bool) -> None:
        self.network = copy.deepcopy(network).to(setting.device).train()
        self.loss = smp.losses.LovaszLoss(mode="multiclass", from_logits=True)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.optimizer.base_lr)
        self.device, self.bfloat16 = setting.device, bfloat16

    def __call__(self, images: Tensor, masks: Tensor) -> float:
        """One step on normalised images [N, 3, H, W], float32, and classes [N, H, W], int64; its loss."""
        images, masks = images.to(self.device), masks.to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(images)
        loss = self.loss(logits.float(), masks)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class OurStep:
    """A training step of `etnet train`."""

    def __init__(self, network: nn.Module, recipe: Recipe, setting: Setting, *, bfloat16: bool) -> None:
        precision = "bfloat16" if bfloat16 else "float32"
        training = recipe.training.model_copy(update={"precision": precision})
        recipe = recipe.model_copy(update={"training": training})
        network = copy.deepcopy(network).to(setting.device).to(memory_format=torch.channels_last).train()
        self.rate = recipe.optimizer.base_lr
        self.stepper = Stepper(
            network,
            recipe=recipe,
            optimizer=build_optimizer(network, recipe.optimizer),
            device=torch.device(setting.device),
            group=ALONE,
            report=print,
        )

    def __call__(self, batch: Batch) -> float:
        """One step; its loss."""
        return self.stepper.run(batch, self.rate).loss


def step_rows(setting: Setting, own: Network, other: Network, recipe: Recipe, batch: Batch) -> list[Comparison]:
    """Training steps on one batch, in float32 and, where the processor or GPU has it, in bfloat16."""
    contract = recipe.contract()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (contract.mean, contract.std))
    images, masks = (batch.images.float() - mean) / std, batch.masks.long()
    unet = recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": "unet"})})
    same = build_model(unet.model, len(recipe.data.class_names))
    take_over(same, other.module)
    rows = []
    for bfloat16 in [False, True] if has_bfloat16(setting.device) else [False]:
        theirs = PlainStep(other.module, recipe, setting, bfloat16=bfloat16)
        steps = {
            other.name: OurStep(same, unet, setting, bfloat16=bfloat16),
            own.name: OurStep(own.module, recipe, setting, bfloat16=bfloat16),
        }
        apart = abs(steps[other.name](batch) - theirs(images, masks))
        results = {
            other.name: f"same network and loss; the first losses differ by {apart:.1g}",
            own.name: f"other networks, ours with a second loss for edges: {own}; {other}",
        }
        tasks = {name: partial(step, batch) for name, step in steps.items()}
        times = setting.turns({**tasks, PACKAGE: partial(theirs, images, masks)})
        count, _, height, width = images.shape
        rows += [
            Comparison.of_rounds(
                (f"etnet's Stepper, {name}", times[name]),
                (f"plain loop, {other.name}, {PACKAGE}", times[PACKAGE]),
                version=VERSION,
                subject="training step",
                case=f"{count} crops of {height}x{width}, {'bfloat16 autocast' if bfloat16 else 'float32'}, "
                f"{side_by_side.processor_or_gpu(setting.device)}",
                unit="ms",
                result=result,
            )
            for name, result in results.items()
        ]
    return rows


def take_over(same: nn.Module, network: nn.Module) -> None:
    """Give etnet's copy of a network the weights of the original, whose tensors have the same order and shapes."""
    own, other = same.state_dict(), network.state_dict()
    if [value.shape for value in own.values()] != [value.shape for value in other.values()]:
        raise AssertionError("etnet's unet is not the Unet of the package")
    same.load_state_dict(dict(zip(own, other.values(), strict=True)))


def has_bfloat16(device: str) -> bool:
    """Whether multiplications of bfloat16 are done in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not features().isdisjoint({"avx512_bf16", "amx_bf16"})


def features() -> set[str]:
    """Instruction sets of the processor; none where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = side_by_side.arguments(__doc__, rounds=3, words=words)
    side_by_side.use_threads(options.threads)
    setting = Setting(options.device, options.rounds, options.smoke)
    size = SMOKE if options.smoke else (f"training.batch_size={16 if options.device == 'cuda' else 2}",)
    with tempfile.TemporaryDirectory() as scratch:
        dataset, recipe = side_by_side.open_pictures(options, Path(scratch), *size)
        batches = build_training_loader(dataset, recipe, start_iteration=0, total_iterations=1, workers=0)
        (batch,) = itertools.islice(batches, 1)
    own, other = networks(recipe)
    rows = loss_rows(setting)
    rows.append(inference_row(setting, own, other, recipe.data.crop_size))
    rows += step_rows(setting, own, other, recipe, batch)
    side_by_side.conclude(
        options,
        rows,
        peer="smp",
        what=f"loss, forward pass and training step beside {PACKAGE}",
        packages=("segmentation_models_pytorch", "timm"),
        figures={
            "networks": {
                network.name: {"parameters_m": round(network.parameters, 2), "gmacs": round(network.gmacs, 2)}
                for network in (own, other)
            }
        },
    )


if __name__ == "__main__":
    main()
