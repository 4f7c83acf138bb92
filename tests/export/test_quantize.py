from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from etnet.errors import DataError
from etnet.export.quantize import float_nodes, quantize_onnx
from etnet.inference.backends import open_backend
from etnet.sidecar import read_sidecar
from helpers.backends import photographs

INT8, UINT8 = onnx.TensorProto.INT8, onnx.TensorProto.UINT8


def quantized(exported_models, tmp_path: Path, *, kind: str = "two_classes", **options) -> Path:
    source = exported_models(kind)[1]
    path = tmp_path / "int8.onnx"
    quantize_onnx(source, path, read_sidecar(source), list(photographs(6, 40, 60, seed=1)), **options)
    return path


@pytest.mark.parametrize("kind", ["two_classes", "high_resolution"])
def test_an_int8_file_gives_nearly_the_same_and_is_smaller(exported_models, tmp_path, kind):
    source = exported_models(kind)[1]
    path = quantized(exported_models, tmp_path, kind=kind)
    images = photographs(4, 48, 64)
    exact, short = (open_backend(file, threads=1).backend.run(images) for file in (source, path))
    assert not np.array_equal(short.probabilities, exact.probabilities)
    assert np.mean(short.labels != exact.labels) < 0.03
    sidecar = read_sidecar(path)
    assert (sidecar.precision, sidecar.quantized_for) == ("int8", "processor")
    assert sidecar.source == read_sidecar(source).source
    assert path.stat().st_size < 0.7 * source.stat().st_size
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize("target", ["processor", "tensorrt"])
def test_each_kind_of_runtime_gets_the_integers_that_it_multiplies(exported_models, tmp_path, target):
    model = onnx.load(quantized(exported_models, tmp_path, target=target))
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    activations = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert activations
    assert {zero.dtype.name for zero in activations} == {"int8" if target == "tensorrt" else "uint8"}
    weights = {
        node.input[0]: node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    kinds = {constants[name].dtype.name for name in weights}
    if target == "tensorrt":
        assert all(not zero.any() for zero in activations)
        # Its parser takes no 32-bit biases.
        assert kinds == {"int8"}
    else:
        assert kinds == {"int8", "int32"}
    per_channel = [node for name, node in weights.items() if constants[name].ndim == 4]
    assert per_channel
    assert all(constants[node.input[1]].ndim == 1 for node in per_channel)


def test_sensitive_nodes_are_found_by_their_place_in_the_graph():
    """image -> Cast -> stem -> body -> (mean -> reduce -> Sigmoid) * body -> head -> Resize."""
    steps = [
        ("Cast", "cast", ["image"]),
        ("Conv", "stem", ["cast", "w"]),
        ("Relu", "relu", ["stem"]),
        ("Conv", "body", ["relu", "w"]),
        ("ReduceMean", "mean", ["body"]),
        ("Conv", "reduce", ["mean", "w"]),
        ("Sigmoid", "gate", ["reduce"]),
        ("Mul", "weigh", ["body", "gate"]),
        ("Conv", "head", ["weigh", "w"]),
        ("Resize", "enlarge", ["head"]),
    ]
    nodes = [helper.make_node(kind, inputs, [name], name=name) for kind, name, inputs in steps]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    assert float_nodes(model) == {"cast", "stem", "mean", "reduce", "gate", "head", "enlarge"}


@pytest.mark.parametrize("kind", ["two_classes", "high_resolution"])
def test_the_network_keeps_its_first_and_last_convolutions_in_float(exported_models, kind):
    model = onnx.load(exported_models(kind)[1])
    kept = float_nodes(model)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    kept_convolutions = [name for name in convolutions if name in kept]
    # The stem, two classifiers, and two per weighted block.
    assert len(kept_convolutions) == 1 + 2 + 2 * 3
    assert convolutions[0] in kept
    assert len(kept_convolutions) < len(convolutions) / 2


def test_without_images_nothing_is_written(exported_models, tmp_path):
    source = exported_models("two_classes")[1]
    with pytest.raises(DataError, match="needs calibration images"):
        quantize_onnx(source, tmp_path / "int8.onnx", read_sidecar(source), [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_behind(exported_models, tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    with pytest.raises(KeyboardInterrupt):
        quantized(exported_models, tmp_path)
    assert list(tmp_path.iterdir()) == []
