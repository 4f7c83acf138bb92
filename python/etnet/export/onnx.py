"""ONNX files of standard operators, with the contract in the graph and the description in the metadata."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from etnet.errors import UsageError
from etnet.export.contract_network import ContractNetwork, fold_batch_norms
from etnet.export.images import LARGEST_SIDE, check_size
from etnet.manifest import WeightsInfo, read_weights_info
from etnet.models.weights import load_network
from etnet.output import write_bytes
from etnet.sidecar import METADATA_KEY, InputSpec, Sidecar, Source, file_sha256, write_sidecar
from etnet.types import RegionOfInterest

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The oldest version of the ONNX operators that PyTorch's exporter writes, which the most runtimes read."""

_LARGEST_BATCH = 1024
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def export_onnx(
    weights: Path,
    output: Path,
    *,
    precision: Literal["fp32", "fp16"] = "fp32",
    size: tuple[int, int] | None = (512, 512),
    batch: tuple[int, int, int] = (1, 1, 8),
) -> Sidecar:
    """Write `output` and its sidecar, each whole or not at all.

    Args:
        weights: Weights file of a training run.
        output: ONNX file to write.
        precision: Precision of the network inside; normalisation, softmax and sigmoid are always float32.
        size: (height, width) that the network takes; None for any multiple of the contract's `size_multiple`.
        batch: Smallest, best and largest batch, for the engine built from the file; the file takes any.

    Returns:
        What the sidecar says.

    Raises:
        ModelFileError: The weights are damaged.
        UsageError: The size or the batch cannot be, or the network needs a size and none is given.
        EnvironmentFault: The disk refuses.
    """
    info = read_weights_info(weights)
    check_input(size, batch, multiple=info.contract.size_multiple, roi=info.contract.roi)
    if size is None and not info.recipe.model.traits.exports_free_size:
        raise UsageError(
            f"{info.recipe.model.name} cannot be exported for all sizes at once; name one, such as 512x512"
        )
    network = load_network(weights).float().eval()
    multiple = info.contract.size_multiple
    fold_batch_norms(network, torch.zeros(1, 3, 4 * multiple, 4 * multiple))
    if precision == "fp16":
        network = network.half()
    deployed = ContractNetwork(network, info.contract).eval()
    model = _trace(deployed, size, multiple=multiple)
    sidecar = describe(info, size, batch, outputs=deployed.output_names, precision=precision)
    return write_model(model, output, sidecar)


def check_input(
    size: tuple[int, int] | None,
    batch: tuple[int, int, int],
    *,
    multiple: int,
    roi: RegionOfInterest | None = None,
) -> None:
    """Refuse a size that the network cannot take, and batches out of order.

    Raises:
        UsageError: Names the nearest size that it can take.
    """
    if size is not None:
        check_size(size, multiple=multiple, roi=roi)
    if not 1 <= batch[0] <= batch[1] <= batch[2] <= _LARGEST_BATCH:
        raise UsageError(
            f"batch {','.join(map(str, batch))}: expected MIN,OPT,MAX in ascending order from 1 to {_LARGEST_BATCH}"
        )


def describe(
    info: WeightsInfo,
    size: tuple[int, int] | None,
    batch: tuple[int, int, int],
    *,
    outputs: tuple[str, ...],
    precision: Literal["fp32", "fp16"],
) -> Sidecar:
    """The sidecar of an export, without what only the finished file can tell."""
    from etnet import __version__

    height, width = size or (None, None)
    return Sidecar(
        contract=info.contract,
        input=InputSpec(height, width, batch),
        outputs=outputs,
        precision=precision,
        source=Source(info.path.name, info.sha256, info.recipe.name, info.epoch, __version__),
        versions={"etnet": __version__, "opset": str(OPSET), **_versions()},
    )


def write_model(model: onnx.ModelProto, output: Path, sidecar: Sidecar) -> Sidecar:
    """Put the description into a model's metadata and write the file and its sidecar.

    Returns:
        The sidecar with the length and the SHA-256 of the file.

    Raises:
        EnvironmentFault: The disk refuses.
    """
    from onnx import helper

    from etnet import __version__

    plain = replace(sidecar, verification=None, file_sha256=None, file_bytes=None)
    model.producer_name, model.producer_version = "etnet", __version__
    helper.set_model_props(model, {METADATA_KEY: plain.to_json()})
    _remove_traces(model)
    content = model.SerializeToString()
    write_bytes(output, content)
    complete = replace(sidecar, file_sha256=file_sha256(output), file_bytes=len(content))
    write_sidecar(output, complete)
    return complete


def _trace(deployed: ContractNetwork, size: tuple[int, int] | None, *, multiple: int) -> onnx.ModelProto:
    dimensions: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)}
    height, width = size or (4 * multiple, 6 * multiple)
    if size is None:
        largest = LARGEST_SIDE // multiple
        dimensions |= {
            axis: multiple * torch.export.Dim(name, min=2, max=largest)
            for axis, name in ((1, "height_steps"), (2, "width_steps"))
        }
    # Two images: the exporter takes a dimension of one for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=deployed.output_names,
            dynamic_shapes=(dimensions,),
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export returned no program, which it does only when it is given a file name")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about its own insides from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _remove_traces(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes about the Python sources, file paths of this machine among it."""
    for item in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for item in (*model.graph.input, *model.graph.output):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
