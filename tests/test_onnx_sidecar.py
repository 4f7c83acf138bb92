from __future__ import annotations

import onnx
import pytest

from etnet.errors import ModelFileError
from etnet.onnx_sidecar import describe_onnx
from etnet.sidecar import file_sha256, sidecar_path
from helpers.onnx_graphs import describe, write_small_onnx


def test_the_sidecar_is_read_and_checked(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx")
    assert describe_onnx(path).file_sha256 == file_sha256(path)
    with path.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ModelFileError, match=r"its bytes are not those that model\.onnx\.json describes"):
        describe_onnx(path)


def test_without_a_sidecar_the_copy_in_the_file_is_read(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx", size=None, num_classes=3)
    sidecar_path(path).unlink()
    assert describe_onnx(path) == describe("fp32", None, 3)


def test_an_onnx_file_of_someone_else_is_refused(tmp_path):
    path = write_small_onnx(tmp_path / "model.onnx", described=False)
    onnx.checker.check_model(onnx.load(path))
    with pytest.raises(ModelFileError, match=r"not exported by etnet.*etnet export RUN"):
        describe_onnx(path)


def test_a_file_that_is_no_onnx_and_one_that_is_missing_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelFileError, match="no such ONNX file; make one with: etnet export RUN --output"):
        describe_onnx(path)
    path.write_bytes(b"not a graph")
    with pytest.raises(ModelFileError, match="not a readable ONNX file"):
        describe_onnx(path)
