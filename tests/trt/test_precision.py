from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from etnet.trt.network import parse_network
from etnet.trt.precision import of_engine, of_network
from etnet.trt.progress import BuildState, SilentObserver
from helpers.onnx_graphs import describe, write_small_onnx


def layer(kind: str, dtype: str, output: str, *inputs: str):
    tensors = [SimpleNamespace(name=name) for name in inputs]
    result = SimpleNamespace(name=output, dtype=SimpleNamespace(name=dtype))
    return SimpleNamespace(
        type=SimpleNamespace(name=kind),
        num_inputs=len(inputs),
        num_outputs=1,
        get_input=lambda index: tensors[index],
        get_output=lambda index: result,
    )


def network(*layers):
    return SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])


def test_layers_that_compute_are_counted_and_layers_that_move_are_not():
    found = of_network(
        network(
            layer("CAST", "FLOAT", "a", "image"),
            layer("CONVOLUTION", "HALF", "b", "a"),
            layer("ACTIVATION", "HALF", "c", "b"),
            layer("SHUFFLE", "FLOAT", "d", "c"),
            layer("CONSTANT", "FLOAT", "e"),
            layer("RESIZE", "HALF", "f", "d"),
            layer("SOFTMAX", "FLOAT", "g", "f"),
            layer("ELEMENTWISE", "INT64", "sizes", "h"),
        )
    )
    assert found == {"fp16": 0.75, "fp32": 0.25}


def test_a_layer_behind_a_dequantisation_runs_in_int8():
    found = of_network(
        network(
            layer("DEQUANTIZE", "FLOAT", "a", "q"),
            layer("CONVOLUTION", "FLOAT", "b", "a", "weights"),
            layer("ACTIVATION", "FLOAT", "c", "b"),
        )
    )
    assert found == {"int8": 0.5, "fp32": 0.5}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_shares_of_a_real_network(rtx, tmp_path, precision):
    # 14 convolutions, 13 activations, one enlargement; in float32: subtract, divide, 2 softmax, argmax, product, round.
    path = write_small_onnx(tmp_path / "model.onnx", precision=precision)
    definition = parse_network(rtx, path, describe(precision, (32, 48), 2), BuildState(SilentObserver()))
    found = of_network(definition.network)
    assert sum(found.values()) == pytest.approx(1)
    half = (14 + 13 + 1) / (14 + 13 + 1 + 7)
    assert found == pytest.approx({"fp32": 1.0} if precision == "fp32" else {"fp16": half, "fp32": 1 - half})


def test_layers_of_an_engine_are_read_from_the_inspectors_words():
    texts = [
        "Row major linear FP32",
        "Channel major FP16 format where channel % 8 == 0",
        "Thirty-two wide channel vectorized row major Int8 format",
        "Half",
    ]
    layers = [{"Name": text, "Outputs": [{"Format/Datatype": text}]} for text in texts]
    layers.append({"Name": "copy", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major linear FP32"}]})
    assert of_engine(json.dumps({"Layers": layers})) == {"fp16": 0.5, "fp32": 0.25, "int8": 0.25}


def test_an_engine_that_gives_names_only_says_nothing_about_precision():
    assert of_engine(json.dumps({"Layers": ["conv1", "conv2"]})) == {}
