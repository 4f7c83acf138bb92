"""Comparisons with peers: both sides compute what their rows say, and every script writes rows of one form."""

from __future__ import annotations

import json
import math
import re
from functools import partial

import numpy as np
import pytest
import torch

from helpers.peers import load_peer

side_by_side = load_peer("side_by_side")
crop_sources = load_peer("crop_sources")
peer_data = load_peer("peer_data")


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def options(*words: str):
    return side_by_side.arguments("", rounds=3, words=["--smoke", "--threads", "1", *words])


def rows_of(path):
    """The rows of a result file, after a look at its form."""
    result = json.loads(path.read_text("utf-8"))
    assert {"benchmark", "what", "command", "commit", "seconds", "date", "machine", "gpus", "versions"} <= result.keys()
    for row in result["comparisons"]:
        assert row["theirs"]["version"]
        assert row["ours"]["version"] is None
        assert math.isfinite(row["ratio"])
        assert row["ratio"] > 0
        assert row["result"]
        assert row["rounds"] >= 1
    return result["benchmark"], result["comparisons"]


def test_a_smoke_run_has_one_round_and_draws_its_pictures(tmp_path):
    chosen = options("--rounds", "9")
    assert chosen.rounds == 1
    dataset, recipe = side_by_side.open_pictures(chosen, tmp_path)
    assert len(dataset) == 3
    assert recipe.name == "drive"
    assert {int(value) for value in np.unique(dataset.load(0).mask)} == {0, 1}


@pytest.mark.parametrize("inside", [False, True])
def test_drive_is_found_itself_and_in_its_parent(inside, tmp_path):
    from helpers.reproduce import write_drive_of_discs

    root = write_drive_of_discs(tmp_path / "DRIVE")
    chosen = options("--data", str(root if inside else tmp_path), "--json", str(tmp_path / "out.json"))
    dataset, recipe = side_by_side.open_pictures(chosen, tmp_path)
    assert recipe.data.dataset == "drive"
    assert len(dataset) == 4
    side_by_side.conclude(chosen, [], peer="x", what="a test", packages=())
    result = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert (result["device"], result["data"]) == ("cpu", "DRIVE")


@pytest.mark.parametrize("form", ["bytes", "float32"])
@pytest.mark.parametrize("name", ["torchvision v2", "OpenCV"])
def test_unchanged_crops_of_a_rival_are_ours(name, form, tmp_path):
    source, _ = peer_data.rivals()[name]
    ours, theirs = crop_sources.still_batches(source, form, tmp_path, size=64)
    expected = (torch.uint8,) * 3 if form == "bytes" else (torch.float32, torch.int64, torch.int64)
    assert tuple(part.dtype for part in ours) == tuple(part.dtype for part in theirs) == expected
    said = crop_sources.agreement(source, form, size=64)
    assert "100.00% equal labels" in said
    assert "equal pixels" in said or "differ by at most" in said
    largest = 0.0 if form == "bytes" else 1e-5
    for image in theirs[0]:
        assert float((ours[0].double() - image.double()).abs().amax(dim=(1, 2, 3)).min()) <= largest


def test_changed_crops_of_opencv_keep_image_mask_and_edge_together(tmp_path):
    opencv_crops = load_peer("opencv_crops")
    _, recipe = side_by_side.open_pictures(options(), tmp_path / "data", "data.crop_size=64")
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 20:70] = 1
    image = np.where(mask[..., None] > 0, np.uint8(220), np.uint8(30)).repeat(3, axis=2)
    generator = np.random.default_rng(0)
    for _ in range(20):
        crop, labels, edge = opencv_crops.changed(image, mask, recipe, generator)
        assert crop.shape == (64, 64, 3)
        assert float(((crop.mean(axis=2) > 125) == labels).mean()) > 0.96  # pixels beside the border are mixed
        assert edge.max() <= 1
        assert not edge[labels == labels.max()].all() or labels.max() == 0


def test_other_forms_of_a_batch_are_refused():
    def wrong(dataset, recipe, form):
        for images, masks, edges in crop_sources.our_crops(dataset, recipe, form):
            yield images.float(), masks, edges

    with pytest.raises(AssertionError, match="other forms"):
        crop_sources.agreement(wrong, "bytes", size=64)


def test_a_source_that_changes_the_images_is_told_by_its_row():
    def brighter(dataset, recipe, form):
        for images, masks, edges in crop_sources.our_crops(dataset, recipe, form):
            yield (images // 2 + 128), masks, edges

    assert "differ by at most" in crop_sources.agreement(brighter, "bytes", size=64)


def test_the_data_script_writes_its_rows(tmp_path):
    peer_data.main(["--smoke", "--json", str(tmp_path / "out.json")])
    kind, rows = rows_of(tmp_path / "out.json")
    assert kind == "peers_data"
    assert [row["theirs"]["name"] for row in rows] == ["torchvision v2", "OpenCV"] * 2
    assert all(row["unit"] == "crops/s" and row["better"] == "higher" for row in rows)


@pytest.fixture
def monai_script():
    pytest.importorskip("monai", reason="MONAI is not installed (pip install -e '.[dev]')")
    return load_peer("peer_monai")


@pytest.fixture
def smp_script():
    reason = "segmentation_models_pytorch is not installed (pip install -e '.[baselines]')"
    pytest.importorskip("segmentation_models_pytorch", reason=reason)
    return load_peer("peer_smp")


@pytest.fixture
def nnunet_script():
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed; benchmarks/peers/setup.sh nnunet makes it")
    return load_peer("peer_nnunet")


class TestMonai:
    """What `peer_monai.py` compares."""

    @pytest.mark.parametrize("style", ["fused", "separate"])
    def test_unchanged_crops_are_ours(self, monai_script, style, tmp_path):
        source = partial(load_peer("monai_crops").monai_crops, style=style)
        ours, theirs = crop_sources.still_batches(source, "float32", tmp_path, size=64)
        for image in theirs[0]:
            assert float((ours[0] - image).abs().amax(dim=(1, 2, 3)).min()) <= 1e-5

    def test_scores_are_equal_for_thin_and_compact_structures(self, monai_script):
        for row in monai_script.score_rows(rounds=1, smoke=True):
            apart = 0.0 if row.result == "equal" else float(row.result.split()[2])
            assert apart <= 1e-6, (row.subject, row.case)

    def test_a_score_that_differs_is_told(self, monai_script):
        pair = monai_script.MaskPair.draw("vessels", 1, 64)
        row = monai_script.score_row("x", pair, lambda: [1.0], lambda: [1.1], rounds=1)
        assert row.result == "equal to 0.09 of the value"
        with pytest.raises(AssertionError, match="x of vessels"):
            monai_script.score_row("x", pair, lambda: [math.nan], lambda: [1.0], rounds=1)

    def test_both_divide_an_image_into_the_same_tiles(self, monai_script):
        recipe = side_by_side.load_recipe("drive", ["model.encoder_weights=none"])
        torch.manual_seed(0)
        setting = monai_script.Setting("cpu", 1, 3, 1)
        row = monai_script.tile_row("one pixel", monai_script.OnePixel(), recipe, tile=32, options=setting)
        # A network that sees one pixel says the same in every tile, whatever the weights.
        assert row.result.startswith("100.000% equal labels, probabilities differ by at most")
        assert float(row.result.split()[-1]) < 1e-5
        seen = []
        theirs = monai_script.TheirTiles(monai_script.OnePixel(), recipe, 32, device="cpu", tiles_per_run=1)
        theirs.network.register_forward_hook(lambda _, given, __: seen.append(given[0].shape))
        theirs(np.zeros((80, 80, 3), np.uint8))
        assert len(seen) == 9


class TestSmp:
    """What `peer_smp.py` compares."""

    def test_losses_and_gradients_are_those_of_float64(self, smp_script):
        for row in smp_script.loss_rows(smp_script.Setting("cpu", 1, smoke=True)):
            loss, gradient = re.search(r"by (\S+) of it, .* by (\S+) of its norm", row.result).groups()
            exact = row.ours.name == "etnet, exact"
            assert float(loss) <= (1e-5 if exact else 1e-3)
            assert float(gradient) <= (1e-3 if exact else 1e-2)

    def test_the_unet_of_both_sides_is_the_same_network_and_its_first_losses_agree(self, smp_script, tmp_path):
        small = ("model.encoder=resnet18", "data.crop_size=32", "training.batch_size=2")
        dataset, recipe = side_by_side.open_pictures(options(), tmp_path, *small)
        (batch,) = [
            next(iter(smp_script.build_training_loader(dataset, recipe, start_iteration=0, total_iterations=1)))
        ]
        own, other = smp_script.networks(recipe)
        assert own.gmacs > 0
        assert own.parameters != other.parameters
        rows = smp_script.step_rows(smp_script.Setting("cpu", 1, smoke=True), own, other, recipe, batch)
        assert len(rows) in (2, 4)
        for row in rows[::2]:
            assert float(row.result.split()[-1]) < (1e-5 if "float32" in row.case else 1e-2), row
        assert all("other networks" in row.result for row in rows[1::2])


class TestNnunet:
    """What `peer_nnunet.py` compares."""

    def test_the_planned_network_costs_what_it_is_told_to(self, nnunet_script, tmp_path):
        dataset, _ = side_by_side.open_pictures(options(), tmp_path / "data")
        model = load_peer("nnunet_model").plan_model(dataset, tmp_path, gmacs=20.0, size=512)
        assert model.gmacs == pytest.approx(20.0, rel=0.1)
        assert (model.folder / "fold_0" / "checkpoint_final.pth").is_file()
        assert {"plans.json", "dataset.json"} <= {path.name for path in model.folder.iterdir()}
