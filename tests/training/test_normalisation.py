from __future__ import annotations

import pytest
import torch

from etnet.config.load import load_recipe
from etnet.training.normalisation import Normalisation

CONTRACT = load_recipe("drive", []).contract()


def computed(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (CONTRACT.mean, CONTRACT.std))
    return (images.float() - mean) / std


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_byte_of_every_channel_becomes_what_the_arithmetic_gives(memory_format: torch.memory_format) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    images[1] = images[1].flip(-1)
    normalised = Normalisation(CONTRACT, torch.device("cpu"))(images.contiguous(memory_format=memory_format))
    assert torch.equal(normalised, computed(images))
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 3, 5, 7)])
def test_any_size_and_a_part_of_a_larger_batch_are_taken(shape: tuple[int, ...]) -> None:
    larger = torch.randint(0, 256, (shape[0], 3, shape[2] + 2, shape[3] + 3), dtype=torch.uint8)
    images = larger[:, :, 1:-1, :-3]
    assert torch.equal(Normalisation(CONTRACT, torch.device("cpu"))(images), computed(images))


def test_compiled_code_computes_the_same_without_a_break() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    normalise = Normalisation(CONTRACT, torch.device("cpu"))
    compiled = torch.compile(lambda given: normalise(given), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images), normalise(images))
