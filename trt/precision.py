"""How much of an engine runs in which precision: counted on the finished engine, or on the network it is built from.

`fp16` that silently became float32 is the most frequent surprise of engines, so the share is measured, recorded and
checked. Layers that only move, reshape, convert or hold values, or that compute sizes, are not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_COUNTED = {
    "ACTIVATION",
    "CONVOLUTION",
    "DECONVOLUTION",
    "EINSUM",
    "ELEMENTWISE",
    "MATRIX_MULTIPLY",
    "NORMALIZATION",
    "POOLING",
    "PARAMETRIC_RELU",
    "REDUCE",
    "RESIZE",
    "SCALE",
    "SOFTMAX",
    "TOPK",
    "UNARY",
}
_NETWORK_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
# Longer words first: `bf16` holds no `fp16`, but `fp32` layouts may mention other numbers.
_ENGINE_TYPES = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16", "fp32": "fp32", "float": "fp32",
    "int8": "int8", "fp8": "fp8",
}  # fmt: skip


def of_network(network: Any) -> dict[str, float]:
    """Share of the layers of a strongly typed network in each precision, 0..1, most frequent first.

    A layer counts as int8 where its input comes from an explicit dequantisation, because the builder fuses the two.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized = {layer.get_output(0).name for layer in layers if layer.type.name == "DEQUANTIZE"}
    found: list[str | None] = []
    for layer in layers:
        if layer.type.name not in _COUNTED or layer.num_outputs == 0:
            continue
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        if any(tensor is not None and tensor.name in dequantized for tensor in inputs):
            found.append("int8")
        else:
            found.append(_NETWORK_TYPES.get(layer.get_output(0).dtype.name))
    return shares(found)


def of_engine(inspector_json: str) -> dict[str, float]:
    """The same from the layer information of an engine that was built with detailed profiling.

    Args:
        inspector_json: What the engine inspector returns for the whole engine in its JSON format.
    """
    layers = json.loads(inspector_json).get("Layers", ())
    # Without detailed profiling the layers are bare names.
    described = [layer for layer in layers if isinstance(layer, Mapping)]
    return shares(_engine_layer(layer) for layer in described)


def _engine_layer(layer: Mapping[str, Any]) -> str | None:
    if layer.get("LayerType") in ("Reformat", "NoOp", "Constant", "Shape", "shape_call", "Shuffle"):
        return None
    # The key is `Format/Datatype` in most versions.
    texts = [
        str(value).lower()
        for tensor in layer.get("Outputs", ())
        for key, value in tensor.items()
        if "datatype" in key.lower()
    ]
    for text in texts:
        for word, precision in _ENGINE_TYPES.items():
            if word in text:
                return precision
    return None


def shares(precisions: Iterable[str | None]) -> dict[str, float]:
    """Count and divide; None is not counted.

    >>> shares(["fp16", "fp32", "fp16", None, "fp16"])
    {'fp16': 0.75, 'fp32': 0.25}
    """
    counts = Counter(precision for precision in precisions if precision is not None)
    total = counts.total()
    return {precision: count / total for precision, count in counts.most_common()}
