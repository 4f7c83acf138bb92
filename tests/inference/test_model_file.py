from __future__ import annotations

from etnet.inference.model_file import ModelDescription
from etnet.manifest import read_weights_info
from etnet.sidecar import file_sha256, read_sidecar


def test_weights_and_the_file_exported_from_them_name_the_same_source(exported_models):
    weights, model = exported_models("three_classes")
    of_weights = ModelDescription.of_weights(read_weights_info(weights))
    of_model = ModelDescription.of_deployed(model, read_sidecar(model))
    assert of_weights.contract == of_model.contract
    assert of_weights.source == of_model.source
    assert of_weights.sha256 == of_model.source.weights_sha256 == file_sha256(weights)
    assert of_model.sha256 == file_sha256(model)


def test_without_a_sidecar_the_hash_is_that_of_the_file(exported_models, tmp_path):
    from dataclasses import replace

    path = tmp_path / "model.onnx"
    path.write_bytes(b"some bytes")
    inside = replace(read_sidecar(exported_models("two_classes")[1]), file_sha256=None, file_bytes=None)
    assert ModelDescription.of_deployed(path, inside).sha256 == file_sha256(path)


def test_the_summary_holds_plain_values(exported_models):
    weights = exported_models("two_classes")[0]
    summary = ModelDescription.of_weights(read_weights_info(weights)).to_dict()
    assert summary["path"] == str(weights)
    assert summary["precision"] == "fp32"
    assert summary["class_names"] == ["background", "vessel"]
    assert summary["class_colors"][0] == [0, 0, 0]
    assert summary["recipe"] == "small"
