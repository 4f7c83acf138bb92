from __future__ import annotations

import json
from dataclasses import replace

import pytest

from etnet.errors import ModelFileError
from etnet.sidecar import (
    EngineSpec,
    InputSpec,
    Sidecar,
    Source,
    decode_sidecar,
    file_sha256,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from etnet.types import Contract, ImageStatistics, TrainingRange

CONTRACT = Contract(
    class_names=("background", "vessel"),
    class_colors=((0, 0, 0), (46, 204, 113)),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    image_size=(512, 512),
    edge_width=5,
    training_range=TrainingRange(
        ImageStatistics(0.3, 0.04, 0.44, 0.45, 0.12, -1.3), ImageStatistics(0.6, 0.15, 0.68, 0.59, 0.22, -1.1), 20
    ),
)
SIDECAR = Sidecar(
    contract=CONTRACT,
    input=InputSpec(512, 512, (1, 4, 8)),
    outputs=("labels", "edges", "probabilities"),
    precision="fp16",
    source=Source("best.safetensors", "ab" * 32, "drive", 300, "0.1.0"),
    versions={"torch": "2.14.1"},
    engine=EngineSpec(
        "tensorrt-rtx", "1.7.1.116", "cd" * 32, targets=("sm86", "sm89"), layer_precisions={"fp16": 0.97}
    ),
)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(b"a plan, say")
    write_sidecar(path, replace(SIDECAR, file_sha256=file_sha256(path), file_bytes=path.stat().st_size))
    return path


def test_every_field_survives_the_text():
    assert decode_sidecar(SIDECAR.to_json(), origin="here") == SIDECAR


def test_a_description_of_before_the_training_range_was_stored_reads_without():
    text = json.loads(SIDECAR.to_json())
    del text["contract"]["training_range"], text["contract"]["edge_width"]
    expected = replace(SIDECAR, contract=replace(CONTRACT, training_range=None, edge_width=3))
    assert decode_sidecar(json.dumps(text), origin="here") == expected


def test_a_sidecar_lies_beside_its_model_and_reads_back(model):
    assert sidecar_path(model).name == "model.engine.json"
    sidecar = read_sidecar(model)
    assert replace(sidecar, file_sha256=None, file_bytes=None) == SIDECAR


def test_a_model_without_a_sidecar_has_none(tmp_path):
    assert read_sidecar(tmp_path / "model.engine") is None


@pytest.mark.parametrize("content", [b"a plan, sax", b"a plan, say more", b""])
def test_a_changed_byte_is_noticed(model, content):
    model.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.engine: its bytes are not those that model\.engine\.json"):
        read_sidecar(model)


def test_a_sidecar_whose_model_is_gone_says_so(model):
    model.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_sidecar(model)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda values: values.pop("contract"), "contract"),
        (lambda values: values["input"].update(batch=[1, 2]), "input.batch"),
        (lambda values: values.update(precision="fp4"), "precision"),
        (lambda values: values["source"].update(epoch="many"), "source.epoch"),
        (lambda values: values["source"].update(weights=""), "source.weights"),
        (lambda values: values["engine"].update(onnx="../../model.onnx"), "engine.onnx"),
        (lambda values: values.update(outputs=["labels", "masks"]), "outputs"),
        (lambda values: values["input"].update(batch=[0, 1, 8]), "input.batch"),
    ],
)
def test_a_damaged_field_is_named(model, change, place):
    values = json.loads(sidecar_path(model).read_text())
    change(values)
    sidecar_path(model).write_text(json.dumps(values))
    with pytest.raises(
        ModelFileError, match=rf"model\.engine\.json: the description of the model is damaged \({place}"
    ):
        read_sidecar(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff", '"a"'])
def test_text_that_is_no_description_is_one_sentence(text):
    with pytest.raises(ModelFileError, match="metadata of x: the description of the model is damaged"):
        decode_sidecar(text, origin="metadata of x")


def test_another_format_names_the_version_that_wrote_it():
    with pytest.raises(ModelFileError, match=r"format 2 of etnet 0\.1\.0; this etnet reads format 1"):
        decode_sidecar(replace(SIDECAR, format=2).to_json(), origin="here")


def test_a_later_format_with_other_fields_is_not_called_damaged():
    text = json.dumps({"format": 2, "stages": [], "source": {"etnet_version": "3.0"}})
    with pytest.raises(ModelFileError, match=r"model\.onnx: format 2 of etnet 3\.0; this etnet reads format 1"):
        decode_sidecar(text, origin="model.onnx")
