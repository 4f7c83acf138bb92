from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.data.io import read_image
from etnet.errors import CheckFailed
from etnet.losses import EdgeSupervisedLoss, LossTerms
from etnet.manifest import read_weights_info
from etnet.models.weights import load_network
from helpers.runs import StopAfter, network_in, tiny_recipe, tiny_run, write_disc_folder

LAST = "weights/last.safetensors"


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_disc_folder(tmp_path / "discs")


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_what_is_needed_to_do_it_again(
    bad: str, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = EdgeSupervisedLoss.forward, iter(range(100))

    def spoilt(self: EdgeSupervisedLoss, *arguments: object, **options: object) -> LossTerms:
        terms = plain(self, *arguments, **options)
        if next(calls) != 2:
            return terms
        # The square root of 0 is finite, its gradient is not.
        return terms._replace(
            total=terms.total * float("nan") if bad == "loss" else terms.total + (terms.total * 0).sqrt()
        )

    monkeypatch.setattr(EdgeSupervisedLoss, "forward", spoilt)
    recipe, run = tiny_recipe("data.validation_fraction=0"), tmp_path / "run"
    with pytest.raises(CheckFailed, match=r"nonfinite/iteration-3\.safetensors and \.png") as caught:
        tiny_run(recipe, discs, run)
    kept = run / "nonfinite" / "iteration-3.safetensors"
    info, tensors = read_weights_info(kept), load_file(kept)
    assert all(name in str(caught.value) for name in info.training_state["batch_ids"])
    assert info.iteration == 2
    assert tensors["training/batch/images"].shape == (2, 3, 32, 32)
    assert read_image(kept.with_suffix(".png")).std() > 0

    monkeypatch.undo()
    tiny_run(recipe, discs, tmp_path / "good", observer=StopAfter(2))
    before = network_in(load_file(tmp_path / "good" / LAST))
    same = [name for name in before if torch.equal(before[name], tensors[name])]
    assert [name for name in before if name not in same and "running_" not in name and "num_batches" not in name] == []
    assert load_network(kept)


def test_a_disk_that_refuses_the_batch_does_not_hide_the_loss(discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "nonfinite").write_text("in the way")
    recipe = tiny_recipe(
        "optimizer.base_lr=1e30", "training.epochs=20", "data.validation_fraction=0", "training.save_every=50"
    )
    with pytest.raises(CheckFailed, match=r"^the loss is .*its batch could not be saved"):
        tiny_run(recipe, discs, run)
