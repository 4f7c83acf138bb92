"""8-bit integers in place of floats, with the ranges that real images show: explicit Q/DQ nodes in the ONNX file.

Processors and TensorRT want different graphs. Processors multiply unsigned activations by signed weights, and an
unsigned range that begins at zero swallows each ReLU. TensorRT takes signed activations around zero only, and biases
that stay floats. Each runtime reads the other's graph slowly or not at all, so a file is made for one of them.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from etnet.errors import DataError
from etnet.export.onnx import write_model
from etnet.inference.preprocess import fit, region_contract
from etnet.output import disk_faults
from etnet.sidecar import QuantizedFor, Sidecar
from etnet.types import Contract, UInt8Array

if TYPE_CHECKING:
    import onnx

QUANTIZED_OPERATORS = ("Conv", "Add", "Mul", "MaxPool", "Relu", "Resize", "Concat")


def quantize_onnx(
    source: Path,
    output: Path,
    sidecar: Sidecar,
    images: Sequence[UInt8Array],
    *,
    target: QuantizedFor = "processor",
) -> Sidecar:
    """Write an int8 version of an exported file, per channel, and its sidecar.

    The first convolution, the classifiers and what follows them, and the channel weights of the weighted blocks stay
    floats: they cost little time and much accuracy.

    Args:
        source: fp32 file of `export_onnx`.
        output: ONNX file to write.
        sidecar: Description of `source`.
        images: Calibration images [H, W, 3], uint8, at least one; they go through the contract's own preparation.
        target: Which runtime the file is for.

    Returns:
        What the sidecar of `output` says.

    Raises:
        DataError: There is no image.
        EnvironmentFault: The disk refuses.
    """
    import onnx

    if not images:
        raise DataError("int8 needs calibration images; expected at least one, better 20 to 200")
    with disk_faults(output), tempfile.TemporaryDirectory(dir=output.parent, prefix=".etnet-int8-") as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        _quantize(source, prepared, quantized, _batches(images, sidecar.contract), target=target)
        model = onnx.load(quantized)
    description = replace(sidecar, precision="int8", quantized_for=target, verification=None)
    return write_model(model, output, description)


def _quantize(
    source: Path, prepared: Path, quantized: Path, batches: Iterable[UInt8Array], *, target: QuantizedFor
) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    signed = target == "tensorrt"
    with _quiet():
        quantize_static(
            prepared,
            quantized,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(float_nodes(onnx.load(prepared))),
            extra_options={"ActivationSymmetric": signed, "WeightSymmetric": True, "QuantizeBias": not signed},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's remarks from the user, among them those about channels whose weights are all zero.

    What such channels lose shows in the comparison with PyTorch.
    """
    silence = logging.Filter("nothing that is logged without a logger of its own")
    logging.getLogger().addFilter(silence)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    finally:
        logging.getLogger().removeFilter(silence)


def _batches(images: Sequence[UInt8Array], contract: Contract) -> Iterable[UInt8Array]:
    return (fit(image, region_contract(contract))[0][np.newaxis] for image in images)


class _Reader:
    """Feeds calibration images to ONNX Runtime, which asks for them one by one."""

    def __init__(self, batches: Iterable[UInt8Array]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next input of the network, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def float_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that are better left in floating point.

    The first convolutions after the image; the last ones and all that follows them; and what lies between a global
    mean and the multiplication with its result.
    """
    nodes = list(model.graph.node)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)

    def following(node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [reader for name in node.output for reader in readers[name]]

    # Nodes are in topological order: what follows a node is known before the node itself.
    before_a_convolution: set[str] = set()
    for node in reversed(nodes):
        if any(next_.op_type == "Conv" or next_.name in before_a_convolution for next_ in following(node)):
            before_a_convolution.add(node.name)
    last = {node.name for node in nodes if node.name not in before_a_convolution}

    after_a_convolution: set[str] = set()
    in_context: set[str] = set()
    for node in nodes:
        if node.op_type == "Conv" or node.name in after_a_convolution:
            after_a_convolution |= {next_.name for next_ in following(node)}
        if node.op_type == "ReduceMean" or node.name in in_context:
            in_context |= {node.name} | {next_.name for next_ in following(node) if next_.op_type != "Mul"}
    first = {node.name for node in nodes if node.op_type == "Conv" and node.name not in after_a_convolution}
    before = {node.name for node in nodes if node.op_type != "Conv" and node.name not in after_a_convolution}
    return first | before | last | in_context
