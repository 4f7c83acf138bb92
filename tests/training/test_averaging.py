from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from etnet.errors import ModelFileError
from etnet.models import build_model
from etnet.models.weights import load_network
from etnet.training.averaging import WeightAverage, decay_of
from etnet.training.validation import validate as validate_network
from helpers.runs import StopAfter, network_in, tiny_recipe, tiny_run, write_disc_folder

LAST, BEST = "weights/last.safetensors", "weights/best.safetensors"


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


def steps_of(network: torch.nn.Module, count: int) -> list[dict[str, np.ndarray]]:
    """Trains a network on noise without the package's loop; its tensors after every step, in float64."""
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    states = []
    for _ in range(count):
        adam.zero_grad()
        network(torch.randn(2, 3, 32, 32)).seg_logits.square().mean().backward()
        adam.step()
        states.append({name: value.double().numpy().copy() for name, value in network.state_dict().items()})
    return states


@pytest.mark.parametrize("decay", [0.2, 0.9])
def test_every_weight_and_running_statistic_is_the_weighted_mean_over_the_steps(decay: float) -> None:
    torch.manual_seed(0)
    network = build_model(tiny_recipe().model, 2).train()
    average = WeightAverage(network, decay=decay)
    states = []
    for step in range(6):
        states += steps_of(network, 1)
        average.update(network, step=step)
    # Written out: the share of step i is what it brought in times what every later step left of it.
    kept = [min(decay, step / (step + 9)) for step in range(6)]
    shares = [(1 - kept[step]) * float(np.prod(kept[step + 1 :])) for step in range(6)]
    assert sum(shares) == pytest.approx(1)
    for name, value in average.network.state_dict().items():
        if value.is_floating_point():
            expected = sum(share * state[name] for share, state in zip(shares, states, strict=True))
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            assert value == states[-1][name], name


def test_the_first_step_sets_the_average_and_long_runs_reach_the_decay() -> None:
    assert decay_of(0, decay=0.999) == 0
    assert decay_of(10**6, decay=0.999) == 0.999
    ramp = [decay_of(step, decay=0.999) for step in range(20_000)]
    assert ramp == sorted(ramp)


def test_the_average_shares_nothing_with_the_trained_network_and_asks_for_no_gradient() -> None:
    network = build_model(tiny_recipe().model, 2).to(memory_format=torch.channels_last)
    average = WeightAverage(network, decay=0.9)
    before = {name: value.clone() for name, value in average.network.state_dict().items()}
    steps_of(network.train(), 1)
    assert all(torch.equal(value, before[name]) for name, value in average.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert not average.network.training
    mine, theirs = average.network.state_dict(), network.state_dict()
    assert all(mine[name].stride() == theirs[name].stride() for name in mine)


def test_last_holds_the_average_for_inference_and_the_trained_network_for_resuming(discs: Path, tmp_path: Path) -> None:
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    words = ("data.validation_fraction=0", "training.epochs=2", "optimizer.base_lr=0.01")
    tiny_run(tiny_recipe(*words), discs, plain)
    tiny_run(tiny_recipe(*words, "training.ema_decay=0.9"), discs, averaged)
    last = load_file(averaged / LAST)
    trained, average = network_in(last, "training/network/"), network_in(last)
    # Averaging watches the training and does not change it.
    without = network_in(load_file(plain / LAST))
    assert trained.keys() == average.keys() == without.keys()
    assert all(torch.equal(value, without[name]) for name, value in trained.items())
    assert not torch.equal(average["classifier.weight"], trained["classifier.weight"])
    assert all(torch.equal(value, average[name]) for name, value in load_file(averaged / BEST).items())
    loaded = load_network(averaged / LAST).state_dict()
    assert all(torch.equal(value, average[name]) for name, value in loaded.items())


def test_the_averaged_network_is_the_one_that_is_validated(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(network: torch.nn.Module, *arguments: object, **options: object) -> object:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return validate_network(network, *arguments, **options)

    monkeypatch.setattr("etnet.training.trainer.validate", validate)
    tiny_run(tiny_recipe("training.epochs=2", "training.ema_decay=0.9"), discs, tmp_path / "run")
    average = network_in(load_file(tmp_path / "run" / LAST))
    assert all(torch.equal(value, average[name]) for name, value in seen[-1].items())


def test_averaging_cannot_begin_in_the_middle_of_a_run(discs: Path, tmp_path: Path) -> None:
    tiny_run(tiny_recipe(), discs, tmp_path / "run", observer=StopAfter(2))
    with pytest.raises(ModelFileError, match=r"no averaged weights; resume without training\.ema_decay"):
        tiny_run(tiny_recipe("training.ema_decay=0.9"), discs, tmp_path / "run", resume=True)


def test_every_step_of_a_run_enters_the_average_once_with_its_own_number(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = WeightAverage.update

    def update(self: WeightAverage, network: torch.nn.Module, *, step: int) -> None:
        seen.append(step)
        plain(self, network, step=step)

    monkeypatch.setattr(WeightAverage, "update", update)
    recipe = tiny_recipe("training.ema_decay=0.9")
    tiny_run(recipe, discs, tmp_path / "run", observer=StopAfter(5))
    result = tiny_run(recipe, discs, tmp_path / "run", resume=True)
    assert seen == list(range(result.total))
