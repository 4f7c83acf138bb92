"""Steps whose numbers the host reads later, as on a GPU; here the delay is injected on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from etnet.data.datasets import open_dataset
from etnet.data.loader import Batch, build_training_loader
from etnet.errors import CheckFailed
from etnet.losses import EdgeSupervisedLoss, LossTerms
from etnet.models import build_model
from etnet.training import trainer
from etnet.training.averaging import WeightAverage
from etnet.training.checkpoint import training_tensors
from etnet.training.distributed import ALONE
from etnet.training.step import DELAY, NotFinite, Stepper
from etnet.training.tracking import SilentObserver
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

LAST = "weights/last.safetensors"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disc_folder(tmp_path_factory.mktemp("delayed") / "discs")


@pytest.fixture(scope="module")
def batches(discs: Path) -> list[Batch]:
    recipe = tiny_recipe()
    dataset = open_dataset(recipe.data, discs, "train")
    return list(build_training_loader(dataset, recipe, start_iteration=0, total_iterations=7, workers=0))


def stepper_of(delay: int, *overrides: str, device: torch.device = CPU, fused: bool = True) -> Stepper:
    """A stepper of the same fresh network each time."""
    recipe = tiny_recipe(*overrides)
    torch.manual_seed(0)
    network = build_model(recipe.model, 2).to(device).to(memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), fused=fused)
    return Stepper(network, recipe=recipe, optimizer=adam, device=device, group=ALONE, delay=delay)


def state_of(stepper: Stepper) -> dict[str, Tensor]:
    """Weights and moments, without what batch normalization counts."""
    tensors = training_tensors(stepper.network, stepper.optimizer)
    kept = {name: value.clone() for name, value in tensors.items() if "running_" not in name and "num_" not in name}
    return {name: value for name, value in kept.items() if "rng" not in name}


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Makes the loss or the gradient of one call not finite, and that of no other."""

    def at(what: str, number: int) -> None:
        plain, calls = EdgeSupervisedLoss.forward, iter(range(100))

        def spoilt(self: EdgeSupervisedLoss, *arguments: object, **options: object) -> LossTerms:
            terms = plain(self, *arguments, **options)
            if next(calls) != number:
                return terms
            bad = {
                "loss": terms.total * float("nan"),
                # As of a target that is no class, on a GPU: the loss says so, its gradient is finite.
                "loss alone": terms.total + float("nan"),
                # The square root of 0 is finite, its gradient is not.
                "gradient": terms.total + (terms.total * 0).sqrt(),
            }
            return terms._replace(total=bad[what])

        monkeypatch.setattr(EdgeSupervisedLoss, "forward", spoilt)

    return at


@pytest.mark.parametrize("overrides", [(), ("training.batch_size=2", "training.accumulate=2")], ids=["whole", "parts"])
@pytest.mark.parametrize("delay", [1, 3])
def test_a_delay_changes_when_steps_are_read_and_nothing_else(
    delay: int, overrides: tuple[str, ...], batches: list[Batch]
) -> None:
    at_once, later = stepper_of(0, *overrides), stepper_of(delay, *overrides)
    expected, seen = [], []
    for iteration, batch in enumerate(batches):
        for stepper, steps in ((at_once, expected), (later, seen)):
            stepper.submit(batch, 0.001 * (iteration + 1), iteration=iteration)
            steps.extend(stepper.finished())
        assert len(expected) == iteration + 1
        assert len(seen) == max(0, iteration + 1 - delay)
    seen.extend(later.finished(wait=True))
    assert seen == expected
    assert [step.iteration for step in seen] == list(range(len(batches)))
    assert list(later.finished(wait=True)) == []
    mine, theirs = state_of(later), state_of(at_once)
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("what", "scaled"),
    [("loss", False), ("gradient", False), ("loss", True), ("loss alone", False), ("loss alone", True)],
)
def test_a_step_that_is_not_finite_is_found_later_and_nothing_is_updated_meanwhile(
    what: str, scaled: bool, spoil: Callable[[str, int], None], batches: list[Batch]
) -> None:
    spoil(what, 2)
    stepper = stepper_of(DELAY)
    if scaled:
        stepper.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    states, seen = [], []
    with pytest.raises(NotFinite, match=", ".join(dict.fromkeys(batches[2].ids))) as caught:
        for iteration, batch in enumerate(batches):
            states.append(state_of(stepper))
            stepper.submit(batch, 0.01, iteration=iteration)
            seen.extend(step.iteration for step in stepper.finished())
    assert len(states) == 2 + DELAY + 1, "the host hears of it only now"
    assert seen == [0, 1]
    assert (caught.value.iteration, caught.value.batch.ids) == (2, batches[2].ids)
    assert torch.equal(caught.value.batch.images, batches[2].images)
    assert any(not torch.equal(states[1][name], states[2][name]) for name in states[1])
    after = state_of(stepper)
    assert [name for name in after if not torch.equal(after[name], states[2][name])] == []
    assert list(stepper.finished(wait=True)) == []


def test_loss_scaling_leaves_out_a_step_of_an_infinite_gradient_and_goes_on(
    spoil: Callable[[str, int], None], batches: list[Batch]
) -> None:
    spoil("gradient", 1)
    stepper = stepper_of(DELAY)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    states = []
    for batch in batches[:4]:
        stepper.submit(batch, 0.01)
        states.append(state_of(stepper))
    assert len(list(stepper.finished(wait=True))) == 4
    changed = [any(not torch.equal(one[n], other[n]) for n in one) for one, other in pairwise(states)]
    assert changed == [False, True, True]
    assert stepper.scaler.get_scale() == 4.0


def test_an_optimizer_that_has_to_ask_the_host_is_not_delayed() -> None:
    assert stepper_of(DELAY, fused=False).delay == 0
    assert stepper_of(DELAY).delay == DELAY


class Steps(SilentObserver):
    """Notes what a run tells of its steps."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []

    def on_step(self, *, iteration: int, loss: float, learning_rate: float, images_per_second: float) -> None:
        """Note it."""
        assert images_per_second > 0
        self.seen.append((iteration, loss, learning_rate))


@pytest.fixture
def delayed_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes whole runs on the CPU read their steps later."""

    def set_delay(delay: int) -> None:
        monkeypatch.setattr(trainer, "Stepper", partial(Stepper, delay=delay))

    return set_delay


def test_a_run_with_a_delay_tells_saves_and_records_the_same(
    delayed_runs: Callable[[int], None], discs: Path, tmp_path: Path
) -> None:
    recipe, told, files = tiny_recipe("training.ema_decay=0.9"), [], []
    for delay in (0, DELAY):
        delayed_runs(delay)
        observer, run = Steps(), tmp_path / f"delay-{delay}"
        tiny_run(recipe, discs, run, observer=observer)
        told.append(observer.seen)
        files.append(load_file(run / LAST))
    assert told[1] == told[0]
    assert [iteration for iteration, _, _ in told[1]] == list(range(1, 13))
    assert [name for name in files[0] if not torch.equal(files[1][name], files[0][name])] == []
    tables = [columns_without_speed(tmp_path / f"delay-{delay}/metrics.csv") for delay in (0, DELAY)]
    assert tables[1] == tables[0]


def columns_without_speed(path: Path) -> list[list[str]]:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    speed = rows[0].index("images_per_second")
    return [row[:speed] + row[speed + 1 :] for row in rows]


def test_a_run_with_a_delay_keeps_the_batch_that_was_not_finite(
    delayed_runs: Callable[[int], None], spoil: Callable[[str, int], None], discs: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe("data.validation_fraction=0", "training.batch_size=1", "training.save_every=50")
    kept = []
    for delay in (0, DELAY):
        delayed_runs(delay)
        spoil("loss", 3)
        run = tmp_path / f"delay-{delay}"
        with pytest.raises(CheckFailed, match=r"nonfinite/iteration-4\.safetensors"):
            tiny_run(recipe, discs, run)
        kept.append(load_file(run / "nonfinite/iteration-4.safetensors"))
    same = [name for name in kept[0] if "running_" not in name and "num_batches" not in name]
    assert [name for name in same if not torch.equal(kept[1][name], kept[0][name])] == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_no_step_on_a_gpu_waits_for_the_device(precision: str, batches: list[Batch]) -> None:
    overrides = (
        "training.batch_size=2",
        "training.accumulate=2",
        "optimizer.clip_gradient_norm=1",
        "data.ignore_index=255",
    )
    mixed = (f"training.precision={precision}", "loss.cross_entropy=0.5", "training.ema_decay=0.9")
    stepper = stepper_of(DELAY, *overrides, *mixed, device=torch.device("cuda"))
    average = WeightAverage(stepper.network, decay=0.9)
    pinned = [Batch(batch.ids, *(tensor.pin_memory() for tensor in batch[1:])) for batch in batches]
    # What the first step allocates and chooses may wait.
    stepper.run(pinned[0], 0.001)
    torch.cuda.synchronize()
    steps = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration, batch in enumerate(pinned):
            stepper.submit(batch, 0.001, iteration=iteration)
            average.update(stepper.network, step=iteration)
            steps.extend(stepper.finished())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    steps.extend(stepper.finished(wait=True))
    assert [step.iteration for step in steps] == list(range(len(pinned)))
    assert all(0 < step.result.loss < 10 for step in steps)


@pytest.mark.gpu
def test_a_gpu_leaves_out_every_step_from_the_first_that_is_not_finite(
    spoil: Callable[[str, int], None], batches: list[Batch]
) -> None:
    spoil("loss", 2)
    stepper, states = stepper_of(DELAY, device=torch.device("cuda")), []
    with pytest.raises(NotFinite) as caught:
        for iteration, batch in enumerate(batches):
            states.append(state_of(stepper))
            stepper.submit(batch, 0.01, iteration=iteration)
            list(stepper.finished())
    assert (caught.value.iteration, len(states)) == (2, 5)
    after = state_of(stepper)
    assert [name for name in after if not torch.equal(after[name], states[2][name])] == []
