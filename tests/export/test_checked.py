from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from etnet.errors import CheckFailed, DataError, EnvironmentFault
from etnet.export.checked import ExportRequest, export_checked
from etnet.inference.compare import ComparisonImage
from etnet.inference.predictor import Predictor
from etnet.sidecar import read_sidecar
from helpers.backends import photographs


@pytest.fixture
def weights(exported_models) -> Path:
    return exported_models("two_classes")[0]


def images(count: int = 2) -> list[ComparisonImage]:
    return [ComparisonImage(str(index), image) for index, image in enumerate(photographs(count, 48, 64))]


def test_the_figures_of_the_comparison_are_kept_beside_the_file(weights, tmp_path):
    request = ExportRequest(weights, tmp_path / "new/model.onnx", size=(48, 64))
    seen: list[str] = []
    sidecar, comparison = export_checked(request, images(), device="cpu", progress=seen.append)
    assert seen == ["0", "1"]
    assert read_sidecar(request.output) == sidecar
    assert sidecar.verification == {**comparison.to_dict(), "max_drop": 0.005}
    assert sorted(path.name for path in request.output.parent.iterdir()) == ["model.onnx", "model.onnx.json"]
    assert Predictor.load(request.output).backend.input_size == (48, 64)


def test_an_int8_file_that_loses_too_much_says_what_helps(weights, tmp_path):
    request = ExportRequest(
        weights, tmp_path / "model.onnx", "int8", (48, 64), calibration=[photographs(1, 48, 64, seed=9)[0] // 8]
    )
    with pytest.raises(CheckFailed, match=r"in int8 the network loses .*calibrate with more images"):
        export_checked(request, images(), max_drop=0.0, device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_int8_without_images_to_calibrate_leaves_nothing(weights, tmp_path):
    with pytest.raises(DataError, match="calibration images"):
        export_checked(ExportRequest(weights, tmp_path / "model.onnx", "int8", (48, 64)), [], device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(weights, tmp_path):
    def interrupt(_name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_checked(
            ExportRequest(weights, tmp_path / "model.onnx", size=(48, 64)), images(), device="cpu", progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(weights, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="could not be written"):
        export_checked(ExportRequest(weights, tmp_path / "file/model.onnx", size=(48, 64)), [], device="cpu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(weights, tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(EnvironmentFault, match="could not be written"):
        export_checked(ExportRequest(weights, tmp_path / "model.onnx", size=(48, 64)), [], device="cpu")
