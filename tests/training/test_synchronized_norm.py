"""Two processes, started once for the room, against one that has the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from etnet.training.synchronized_norm import SynchronizedBatchNorm, convert_batch_norm
from helpers.two_processes import norm_layer, through_norm


@dataclass(frozen=True)
class Case:
    """How one process does what two did."""

    kind: str
    dtype: torch.dtype
    tolerance: float


CASES = {
    "plain": Case("plain", torch.float32, 1e-6),
    "timm": Case("timm", torch.float32, 1e-6),
    "float64": Case("plain", torch.float64, 1e-12),
    "bfloat16": Case("plain", torch.bfloat16, 1e-2),
}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalize_as_one_does_over_the_whole_batch(two_processes, name):
    case = CASES[name]
    layer = norm_layer(case.kind)
    expected = through_norm(layer.double() if case.dtype == torch.float64 else layer, slice(None), case.dtype)
    first, second = (results[f"norm/{name}"] for results in two_processes)
    together = {key: torch.cat([first[key], second[key]]) for key in ("out", "x")}
    together |= {key: first[key] + second[key] for key in ("weight", "bias")}
    together |= {key: first[key] for key in ("mean", "variance", "batches")}
    for key, value in together.items():
        # Relative to the largest: single values are differences of larger ones.
        bound = case.tolerance * max(1.0, float(expected[key].abs().max()))
        torch.testing.assert_close(value, expected[key], rtol=0, atol=bound, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", CASES)
def test_processes_keep_the_same_statistics_bit_for_bit(two_processes, name):
    first, second = (results[f"norm/{name}"] for results in two_processes)
    assert all(torch.equal(first[key], second[key]) for key in ("mean", "variance", "batches"))


@pytest.mark.parametrize("kind", ["plain", "timm"])
@pytest.mark.parametrize("training", [True, False])
def test_alone_and_in_evaluation_it_is_the_layer_that_it_replaces(kind, training):
    layer, converted = norm_layer(kind).train(training), convert_batch_norm(norm_layer(kind)).train(training)
    assert isinstance(converted, SynchronizedBatchNorm)
    expected, results = through_norm(layer, slice(None)), through_norm(converted, slice(None))
    assert all(torch.equal(results[name], value) for name, value in expected.items())


def test_conversion_keeps_parameters_statistics_and_mode():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(norm_layer("timm"))).eval()
    before = [*network.parameters(), *network.buffers()]
    converted = convert_batch_norm(network)
    assert not any(layer.training for layer in converted.modules())
    after = [*converted.parameters(), *converted.buffers()]
    assert all(one is other for one, other in zip(before, after, strict=True))
