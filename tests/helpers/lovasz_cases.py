"""Inputs of Lovasz-Softmax that its tests on every device share."""

from __future__ import annotations

from typing import ClassVar

import torch

from etnet.ops.lovasz import lovasz_softmax
from helpers.ops import Case, OpTester


def random_case(name: str, shape: tuple[int, ...], *, ignore: bool = False, dtype=torch.int64, **options) -> Case:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    images, classes, height, width = shape
    logits = 2 * torch.randn(shape, generator=generator)
    target = torch.randint(0, classes, (images, height, width), generator=generator)
    if ignore:
        target[torch.rand(target.shape, generator=generator) < 0.3] = 255
        options["ignore_index"] = 255
    return Case(name, (logits, target.to(dtype)), options)


def constant_case(name: str, value: float, classes: int, **options) -> Case:
    target = torch.arange(2 * 3 * 5).view(2, 3, 5) % classes
    return Case(name, (torch.full((2, classes, 3, 5), value), target), options, smooth=False)


def extreme_case(name: str, large: float) -> Case:
    signs = torch.randint(0, 2, (2, 3, 4, 5), generator=torch.Generator().manual_seed(1)).float() * 2 - 1
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    return Case(name, (signs * large, target), smooth=False)


CASES = [
    random_case("binary", (2, 2, 6, 5)),
    random_case("four_classes", (3, 4, 5, 7)),
    random_case("uint8_target", (2, 3, 4, 4), dtype=torch.uint8),
    random_case("int32_target", (2, 3, 4, 4), dtype=torch.int32),
    random_case("one_pixel", (1, 3, 1, 1)),
    random_case("more_than_one_block", (1, 2, 1, 2051)),
    random_case("ignored_pixels", (2, 3, 6, 5), ignore=True),
    random_case("ignored_pixels_uint8", (2, 3, 6, 5), ignore=True, dtype=torch.uint8),
    random_case("ignored_class", (2, 3, 6, 5), ignore_index=0),
    random_case("per_image", (3, 3, 4, 5), per_image=True),
    random_case("per_image_ignored", (3, 3, 4, 5), ignore=True, per_image=True),
    random_case("all_classes", (2, 6, 1, 2), classes="all"),
    random_case("listed_classes", (2, 4, 3, 5), classes=(3, 1)),
    random_case("listed_absent_class_per_image", (4, 6, 1, 2), classes=[5], per_image=True),
    constant_case("constant_binary", 0.0, 2),
    constant_case("constant_four_classes", -3.5, 4),
    constant_case("constant_per_image", 1.0, 2, per_image=True),
    extreme_case("logits_of_100", 100.0),
    extreme_case("logits_of_1e30", 1e30),
    Case("one_class", (torch.randn(2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64)), smooth=False),
]


class LovaszTester(OpTester):
    operator = torch.ops.etnet.lovasz_softmax.default
    method: ClassVar[str]
    bins: ClassVar[int] = 64

    def run(self, *inputs, **options):
        return lovasz_softmax(*inputs, method=self.method, bins=self.bins, **options)

    def operator_arguments(self, case):
        classes = case.options.get("classes", "present")
        logits, target = case.inputs
        return (
            logits.clone().requires_grad_(),
            target,
            classes if isinstance(classes, str) else "listed",
            [] if isinstance(classes, str) else list(classes),
            case.options.get("per_image", False),
            case.options.get("ignore_index"),
            self.method,
            self.bins,
            True,
        )


def check_types_and_layouts(device, method, channels_last, logits_type, target_type, classes):
    generator = torch.Generator().manual_seed(9)
    # Multiples of 1/8 up to 8 are the same number in all three types.
    logits = ((torch.randn(2, classes, 33, 37, generator=generator) * 16).round().clamp(-64, 64) / 8).to(device)
    target = torch.randint(0, classes, (2, 33, 37), generator=generator).to(device)
    target[0, :3] = 100
    options = {"ignore_index": 100, "method": method}
    plain = logits.clone().requires_grad_()
    expected = lovasz_softmax(plain, target, **options)
    expected.backward()
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    other = logits.to(logits_type).contiguous(memory_format=memory_format).requires_grad_()
    loss = lovasz_softmax(other, target.to(target_type), **options)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(other.grad, plain.grad.to(logits_type))
    assert other.grad.is_contiguous(memory_format=memory_format)
