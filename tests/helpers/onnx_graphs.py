"""A small segmentation network as an ONNX file with etnet's inputs, outputs and metadata, made without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from etnet.sidecar import (
    METADATA_KEY,
    InputSpec,
    NetworkPrecision,
    QuantizedFor,
    Sidecar,
    Source,
    file_sha256,
    write_sidecar,
)
from etnet.types import Contract
from helpers.backends import contract

OPSET = 18


class _Graph:
    """Nodes and constants in order, each named after its position."""

    def __init__(self, precision: NetworkPrecision) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.precision = precision
        self.random = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{len(self.nodes)}", **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def cast(self, value: str, kind: int, output: str | None = None) -> str:
        return self.add("Cast", value, to=kind, output=output)

    def quantized(self, value: str, scale: float) -> str:
        """The value rounded to int8 and back, as explicit quantisation writes it."""
        parameters = (self.constant(np.float32(scale)), self.constant(np.int8(0)))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", value, *parameters), *parameters)

    def convolution(self, value: str, inputs: int, outputs: int, *, stride: int = 1) -> str:
        weight = self.random.normal(0, 0.3, (outputs, inputs, 3, 3)).astype(np.float32)
        dtype = np.float16 if self.precision == "fp16" else np.float32
        kernel = self.constant(weight.astype(dtype))
        if self.precision == "int8":
            value, kernel = self.quantized(value, 0.05), self.quantized(kernel, 0.01)
        return self.add("Conv", value, kernel, pads=[1, 1, 1, 1], strides=[stride, stride])


def write_small_onnx(
    path: Path,
    *,
    precision: NetworkPrecision = "fp32",
    size: tuple[int, int] | None = (32, 48),
    num_classes: int = 2,
    layers: int = 12,
    described: bool = True,
    sidecar: bool = True,
    quantized_for: QuantizedFor | None = None,
    trained_as: Contract | None = None,
) -> Path:
    """Write the network: `layers` convolutions at half size, then classes and edges at full size.

    Args:
        path: Where to write.
        precision: Precision of the convolutions; normalisation and softmax are float32.
        size: Fixed (height, width), or None for free size.
        num_classes: Number of classes.
        layers: Number of convolutions between the first and the last.
        described: Whether the metadata say what etnet's export writes there.
        sidecar: Whether a sidecar is written too.
        quantized_for: What the description says of an int8 file.
        trained_as: The contract of the description; by default one of `num_classes` classes and whole images.
    """
    model = _model(_network(precision, num_classes, layers), size, num_classes)
    description = replace(describe(precision, size, num_classes), quantized_for=quantized_for)
    if trained_as is not None:
        description = replace(description, contract=trained_as)
    if described:
        helper.set_model_props(model, {METADATA_KEY: description.to_json()})
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    if described and sidecar:
        write_sidecar(path, replace(description, file_sha256=file_sha256(path), file_bytes=path.stat().st_size))
    return path


def _network(precision: NetworkPrecision, num_classes: int, layers: int) -> _Graph:
    """From `image` to `labels`, `edges` and `probabilities`."""
    graph = _Graph(precision)
    half = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    value = graph.add("Transpose", graph.cast("image", TensorProto.FLOAT), perm=[0, 3, 1, 2])
    value = graph.add("Div", graph.add("Sub", value, graph.constant(np.float32(127))), graph.constant(np.float32(64)))
    if precision == "fp16":
        value = graph.cast(value, half)
    value = graph.add("Relu", graph.convolution(value, 3, 16, stride=2))
    for _ in range(layers):
        value = graph.add("Relu", graph.convolution(value, 16, 16))
    value = graph.convolution(value, 16, num_classes + 2)
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    value = graph.add("Resize", value, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    if precision == "fp16":
        value = graph.cast(value, TensorProto.FLOAT)
    parts = graph.constant(np.array([num_classes, 2], np.int64))
    graph.nodes.append(helper.make_node("Split", [value, parts], ["classes", "edge_classes"], axis=1))
    graph.add("Softmax", "classes", axis=1, output="probabilities")
    largest = graph.add("ArgMax", "classes", axis=1, keepdims=0)
    graph.cast(graph.cast(largest, TensorProto.FLOAT), TensorProto.UINT8, output="labels")
    boundary = graph.add("Softmax", "edge_classes", axis=1)
    boundary = graph.add("Gather", boundary, graph.constant(np.int64(1)), axis=1)
    boundary = graph.add("Round", graph.add("Mul", boundary, graph.constant(np.float32(255))))
    graph.cast(boundary, TensorProto.UINT8, output="edges")
    return graph


def _model(graph: _Graph, size: tuple[int, int] | None, num_classes: int) -> onnx.ModelProto:
    """The graph with its inputs and outputs."""
    height, width = size or ("height", "width")
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
            [
                helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", height, width]),
                helper.make_tensor_value_info("edges", TensorProto.UINT8, ["batch", height, width]),
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, ["batch", num_classes, height, width]
                ),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )


def describe(precision: NetworkPrecision, size: tuple[int, int] | None, num_classes: int) -> Sidecar:
    """What the metadata of such a file say."""
    height, width = size or (None, None)
    return Sidecar(
        contract=contract(num_classes),
        input=InputSpec(height, width),
        outputs=("labels", "edges", "probabilities"),
        precision=precision,
        source=Source("best.safetensors", "ab" * 32, "small", 3, "0.1.0"),
    )
