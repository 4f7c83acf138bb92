from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.inference.input_images import open_input
from etnet.inference.inputs import find_inputs
from etnet.inference.result_files import OutputChoice, ResultWriter
from etnet.types import Prediction
from helpers.backends import contract, image_of, random_labels
from helpers.medical import write_dicom, write_nifti


def prediction(height: int, width: int, seed: int = 0) -> Prediction:
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.ones(3), (height, width)).astype(np.float32)
    probabilities = np.ascontiguousarray(np.moveaxis(maps, -1, 0))
    edges = rng.integers(0, 256, (height, width), dtype=np.uint8)
    return Prediction(probabilities.argmax(axis=0).astype(np.uint8), probabilities, edges)


def write(
    source: Path,
    predictions: list[Prediction],
    output: Path,
    choice: OutputChoice,
    class_names: tuple[str, ...] = contract().class_names,
):
    (item,) = find_inputs(source).items
    opened = open_input(item, intensity_window=(0.0, 255.0))
    output.mkdir(exist_ok=True)
    writer = ResultWriter(output, replace(contract(), class_names=class_names), choice)
    return writer.write(opened, predictions, sha256="0" * 64)


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "eye.png"
    Image.fromarray(image_of(random_labels(12, 17))).save(path)
    return path


def test_probabilities_are_16_bit_pictures_of_each_class_but_the_background(tmp_path, picture):
    predicted = prediction(12, 17)
    result = write(picture, [predicted], tmp_path / "out", OutputChoice(probabilities="png"))
    assert result.probabilities == ("probabilities/vessel/eye.png", "probabilities/optic_disc/eye.png")
    for file, plane in zip(result.probabilities, predicted.probabilities[1:], strict=True):
        with Image.open(tmp_path / "out" / file) as stored:
            values = np.array(stored)
        assert values.dtype == np.uint16
        np.testing.assert_allclose(values / 65535, plane, atol=0.51 / 65535)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (("../../evil", "/tmp/evil"), ("_._.._evil", "_tmp_evil")),
        (("..", "."), ("_.", "_")),
        ((".hidden", "a\\b:c d"), ("_hidden", "a_b_c_d")),
        (("a/b", "a b"), ("1_a_b", "2_a_b")),
        (("Disc", "disc"), ("1_Disc", "2_disc")),
        (("", "\u89c6\u76d8"), ("_", "\u89c6\u76d8")),
        (("x" * 300, "v1.2-rim"), ("x" * 60, "v1.2-rim")),
    ],
)
def test_a_class_is_a_folder_below_that_of_the_probabilities_whatever_it_is_called(tmp_path, picture, names, folders):
    out = tmp_path / "deep/er/out"
    out.mkdir(parents=True)
    result = write(picture, [prediction(12, 17)], out, OutputChoice(probabilities="png"), ("background", *names))
    assert result.probabilities == tuple(f"probabilities/{folder}/eye.png" for folder in folders)
    written = {path.relative_to(out).as_posix() for path in tmp_path.rglob("*.png") if path != picture}
    assert written == {*result.probabilities, result.mask}


def test_probabilities_are_arrays_with_the_names_of_their_classes(tmp_path, picture):
    predicted = prediction(12, 17)
    result = write(picture, [predicted], tmp_path / "out", OutputChoice(probabilities="npz"))
    assert result.probabilities == ("probabilities/eye.npz",)
    with np.load(tmp_path / "out/probabilities/eye.npz") as stored:
        assert stored["probabilities"].dtype == np.float16
        np.testing.assert_array_equal(stored["probabilities"], predicted.probabilities.astype(np.float16))
        assert list(stored["class_names"]) == ["background", "vessel", "optic_disc"]


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_probabilities_of_a_volume_are_one_array(tmp_path, kind):
    write_nifti(tmp_path / "ct.nii", np.zeros((5, 6, 2), np.uint8), np.eye(4))
    slices = [prediction(6, 5, seed) for seed in range(2)]
    result = write(tmp_path / "ct.nii", slices, tmp_path / "out", OutputChoice(probabilities=kind))
    assert result.probabilities == ("probabilities/ct.npz",)
    with np.load(tmp_path / "out/probabilities/ct.npz") as stored:
        assert stored["probabilities"].shape == (3, 2, 6, 5)
        np.testing.assert_array_equal(stored["probabilities"][:, 1], slices[1].probabilities.astype(np.float16))


def test_edges_are_written_when_asked_for(tmp_path, picture):
    predicted = prediction(12, 17)
    assert write(picture, [predicted], tmp_path / "without", OutputChoice()).edge is None
    assert not (tmp_path / "without/edges").exists()
    result = write(picture, [predicted], tmp_path / "with", OutputChoice(edges=True))
    with Image.open(tmp_path / "with" / result.edge) as stored:
        np.testing.assert_array_equal(np.array(stored), predicted.edges)


def test_a_known_spacing_makes_measurements_millimetres(tmp_path):
    write_dicom(tmp_path / "xray.dcm", np.zeros((12, 17), np.uint8), PixelSpacing=["0.5", "0.25"])
    predicted = prediction(12, 17)
    result = write(tmp_path / "xray.dcm", [predicted], tmp_path / "out", OutputChoice())
    assert result.measurements["vessel_area_mm2"] == pytest.approx(np.count_nonzero(predicted.labels == 1) / 8)


def test_a_volume_is_measured_in_millilitres(tmp_path):
    write_nifti(tmp_path / "ct.nii", np.zeros((5, 6, 2), np.uint8), np.diag([2.0, 3.0, 4.0, 1.0]))
    slices = [prediction(6, 5, seed) for seed in range(2)]
    result = write(tmp_path / "ct.nii", slices, tmp_path / "out", OutputChoice())
    vessels = sum(np.count_nonzero(item.labels == 1) for item in slices)
    assert result.measurements["vessel_volume_ml"] == pytest.approx(vessels * 24 / 1000)


def test_equal_runs_write_equal_files(tmp_path, picture):
    choice = OutputChoice(overlay=True, edges=True, probabilities="npz")
    results = [write(picture, [prediction(12, 17)], tmp_path / name, choice) for name in ("one", "two")]
    assert results[0] == results[1]
    assert len(results[0].written) == 4
    for path in results[0].written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
