"""Training against the same loop written out in plain torch, so that every number of the recipe is seen to arrive."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file, save_file

from etnet.config.schema import Recipe
from etnet.data.datasets import open_dataset
from etnet.data.loader import Batch, build_training_loader
from etnet.errors import UsageError
from etnet.losses import LovaszSoftmax
from etnet.models import ETNet
from etnet.training.distributed import ProcessGroup
from etnet.training.step import Stepper, StepResult, resolve_precision
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
IGNORED_VALUE = 128

# Short enough to stay comparable: differences of rounding grow with every step.
BASE = ("data.validation_fraction=0", "training.epochs=1", "optimizer.base_lr=0.002")
PLAIN = {
    "alpha": 0.3, "classes": "present", "per_image": False, "betas": (0.9, 0.999), "weight_decay": 5e-4, "power": 0.9,
    "clip": None, "entropy": 0.0,
}  # fmt: skip
OTHER = PLAIN | {"alpha": 0.5}
"""Settings that no run below has: what they change is the measure for what must not differ."""


def plain_loop(recipe: Recipe, data: Path, weights: Path | None, settings: dict) -> dict[str, torch.Tensor]:
    """Sec. 2.3 of the paper without the package's step, schedule, loss sum or checkpoints."""
    dataset = open_dataset(recipe.data, data, "train")
    total = -(-len(dataset) // 2)
    torch.manual_seed(0)
    network = ETNet(2, encoder="test_resnet", decoder_channels=16, edge_channels=8)
    if weights is not None:
        network.encoder.features.load_state_dict(load_file(weights))
    network.to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), betas=settings["betas"], weight_decay=settings["weight_decay"])
    region = mixed(LovaszSoftmax(settings["classes"], settings["per_image"], 255), settings["entropy"])
    edge = mixed(LovaszSoftmax("present", settings["per_image"], 255), settings["entropy"])
    loader = build_training_loader(dataset, recipe, start_iteration=0, total_iterations=total, workers=0)
    for step, batch in enumerate(loader):
        adam.param_groups[0]["lr"] = 0.002 * (1 - step / total) ** settings["power"]
        output = network((batch.images / 255 - MEAN) / STD)
        alpha = settings["alpha"]
        masks, edges = batch.masks.long(), batch.edges.long()
        loss = alpha * region(output.seg_logits, masks) + (1 - alpha) * edge(output.edge_logits, edges)
        adam.zero_grad()
        loss.backward()
        if settings["clip"] is not None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings["clip"])
        adam.step()
    return network.state_dict()


def mixed(lovasz: LovaszSoftmax, share: float):
    """The loss of the paper with a share of cross-entropy."""
    return lambda logits, target: (
        (1 - share) * lovasz(logits, target)
        + share * torch.nn.functional.cross_entropy(logits, target, ignore_index=255)
        if share
        else lovasz(logits, target)
    )


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Images whose masks hold a class, the background and a strip without label."""
    root = write_disc_folder(tmp_path / "discs")
    for path in sorted((root / "masks").iterdir()):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask[:, 16:24] = IGNORED_VALUE
        cv2.imwrite(str(path), mask)
    return root


def recipe_of(*overrides: str) -> Recipe:
    return tiny_recipe(
        *BASE, "data.ignore_index=255", f"data.mask_values={{0: 0, {IGNORED_VALUE}: 255, 255: 1}}", *overrides
    )


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ((), {}),
        (("loss.alpha=0.8",), {"alpha": 0.8}),
        (("loss.cross_entropy=0.4",), {"entropy": 0.4}),
        (("loss.classes=[1]",), {"classes": [1]}),
        (("loss.per_image=true",), {"per_image": True}),
        (("optimizer.beta1=0.5", "optimizer.beta2=0.9"), {"betas": (0.5, 0.9)}),
        (("optimizer.weight_decay=0.5",), {"weight_decay": 0.5}),
        (("optimizer.poly_power=3",), {"power": 3.0}),
        (("optimizer.clip_gradient_norm=0.001",), {"clip": 0.001}),
    ],
    ids=lambda value: ", ".join(value) or "the paper's" if isinstance(value, tuple) else "",
)
def test_a_run_is_the_loop_of_the_paper(
    overrides: tuple[str, ...], settings: dict, discs: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(*overrides)
    tiny_run(recipe, discs, tmp_path / "run")
    trained = load_file(tmp_path / "run/weights/best.safetensors")
    expected = plain_loop(recipe, discs, None, PLAIN | settings)
    assert distance(trained, expected) < 1e-3 * distance(expected, plain_loop(recipe, discs, None, OTHER))


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of two networks."""
    return sum(float((one[name].double() - other[name].double()).square().sum()) for name in other) ** 0.5


def test_training_starts_from_the_encoder_weights_of_the_recipe(discs: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    weights = tmp_path / "encoder.safetensors"
    save_file(ETNet(2, encoder="test_resnet").encoder.features.state_dict(), weights)
    recipe = recipe_of(f"model.encoder_weights={weights}")
    tiny_run(recipe, discs, tmp_path / "run")
    trained = load_file(tmp_path / "run/weights/best.safetensors")
    expected = plain_loop(recipe, discs, weights, PLAIN)
    assert distance(trained, expected) < 1e-3 * distance(expected, plain_loop(recipe, discs, None, PLAIN))


@pytest.fixture
def batch(discs: Path) -> Batch:
    recipe = recipe_of("training.batch_size=4")
    dataset = open_dataset(recipe.data, discs, "train")
    return next(iter(build_training_loader(dataset, recipe, start_iteration=0, total_iterations=1, workers=0)))


def network_of_parts() -> ETNet:
    """The same network each time; its batch normalization is that of inference, which no other sample changes."""
    torch.manual_seed(0)
    network = ETNet(2, encoder="test_resnet", decoder_channels=16, edge_channels=8)
    return network.to(memory_format=torch.channels_last).eval()


def step_in_parts(batch: Batch, *overrides: str) -> tuple[dict[str, torch.Tensor], StepResult]:
    """The gradient of a step, which plain descent with a rate of 1 subtracts, and what the step reports."""
    network, cpu = network_of_parts(), torch.device("cpu")
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    recipe = recipe_of("training.batch_size=4", *overrides)
    optimizer = torch.optim.SGD(network.parameters())
    stepper = Stepper(network, recipe=recipe, optimizer=optimizer, device=cpu, group=ProcessGroup())
    result = stepper.run(batch, 1.0)
    return {name: before[name] - value.detach() for name, value in network.named_parameters()}, result


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_the_step_of_the_whole_where_the_loss_is_a_mean_over_images(
    parts: int, batch: Batch
) -> None:
    whole, expected = step_in_parts(batch, "loss.per_image=true")
    gradient, result = step_in_parts(batch, "loss.per_image=true", f"training.accumulate={parts}")
    other, _ = step_in_parts(batch, "loss.per_image=true", "loss.alpha=0.5")
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-3)
    assert distance(gradient, whole) < 1e-3 * distance(other, whole)


def test_the_paper_s_loss_of_parts_is_the_mean_of_each_part_s_own(batch: Batch) -> None:
    gradient, result = step_in_parts(batch, "training.accumulate=2")
    network, loss = network_of_parts(), LovaszSoftmax(ignore_index=255)
    totals = []
    for images, masks, edges in zip(batch.images.chunk(2), batch.masks.chunk(2), batch.edges.chunk(2), strict=True):
        output = network((images / 255 - MEAN) / STD)
        totals.append(0.3 * loss(output.seg_logits, masks) + 0.7 * loss(output.edge_logits, edges))
    mean = (totals[0] + totals[1]) / 2
    mean.backward()
    expected = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    whole, _ = step_in_parts(batch)
    assert result.loss == pytest.approx(float(mean.detach()), rel=1e-5)
    assert distance(gradient, expected) < 1e-3 * distance(whole, expected)


def test_clipping_limits_the_gradient_of_all_parts_together(batch: Batch) -> None:
    free, before = step_in_parts(batch, "training.accumulate=2")
    clipped, result = step_in_parts(batch, "training.accumulate=2", "optimizer.clip_gradient_norm=0.01")
    assert result.gradient_norm == before.gradient_norm > 0.01
    nothing = {name: torch.zeros_like(value) for name, value in clipped.items()}
    assert distance(clipped, nothing) == pytest.approx(0.01, rel=1e-2)
    scaled = {name: value * (0.01 / before.gradient_norm) for name, value in free.items()}
    assert distance(clipped, scaled) < 1e-3 * 0.01


@pytest.mark.parametrize(
    ("asked", "device", "format_"),
    [("auto", "cpu", "float32"), ("bfloat16", "cpu", "bfloat16"), ("float16", "cuda", "float16")],
)
def test_the_number_format_follows_recipe_and_device(asked: str, device: str, format_: str) -> None:
    assert resolve_precision(asked, torch.device(device)) == format_


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="use bfloat16 or float32"):
        resolve_precision("float16", torch.device("cpu"))
