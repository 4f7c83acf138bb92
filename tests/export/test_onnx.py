from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from etnet.config.data_section import RoiSection
from etnet.config.networks import NETWORKS
from etnet.config.schema import ModelSection, Recipe
from etnet.errors import UsageError
from etnet.export.onnx import OPSET, check_input, export_onnx
from etnet.inference.backends import open_backend
from etnet.manifest import read_weights_info
from etnet.sidecar import METADATA_KEY, decode_sidecar, file_sha256, read_sidecar
from helpers.backends import photographs
from helpers.weights import TRAINING_RANGE, small_recipe, write_confident

FLOAT, UINT8, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16


@pytest.fixture(params=["three_classes", "two_classes", "no_edges", "high_resolution"])
def pair(request, exported_models) -> tuple[Path, Path]:
    return exported_models(request.param)


def operators(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_graph_is_valid_and_of_standard_operators(pair):
    model = onnx.load(pair[1])
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_the_graph_is_one_that_tensorrt_reads(pair):
    model = onnx.load(pair[1])
    counts = operators(model)
    assert counts["BatchNormalization"] == 0
    assert not {"If", "Loop", "NonZero"} & set(counts)
    # With a fixed size nothing is left to be computed from the size of a tensor.
    assert counts["Shape"] == 0 or read_sidecar(pair[1]).input.size is None
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    # It refuses to transpose 8-bit integers, and makes them from floats only.
    for node in model.graph.node:
        if node.op_type == "Transpose":
            assert types[node.input[0]] == FLOAT
        if node.op_type == "Cast" and node.attribute[0].i == UINT8:
            assert types[node.input[0]] == FLOAT


def test_inputs_and_outputs_are_those_of_the_contract(pair):
    model = onnx.load(pair[1])
    sidecar = read_sidecar(pair[1])
    (image,) = model.graph.input
    assert (image.name, image.type.tensor_type.elem_type) == ("image", UINT8)
    height, width = shape(image)[1:3]
    assert shape(image) == ["batch", height, width, 3]
    assert sidecar.input.size == ((height, width) if isinstance(height, int) else None)
    found = {output.name: (output.type.tensor_type.elem_type, shape(output)) for output in model.graph.output}
    expected = {
        "labels": (UINT8, ["batch", height, width]),
        "edges": (UINT8, ["batch", height, width]),
        "probabilities": (FLOAT, ["batch", sidecar.contract.num_classes, height, width]),
    }
    assert tuple(found) == sidecar.outputs
    assert found == {name: expected[name] for name in sidecar.outputs}


def test_the_description_chains_the_file_to_its_weights(pair):
    weights, model = pair
    info, sidecar = read_weights_info(weights), read_sidecar(model)
    assert (sidecar.contract, sidecar.precision) == (info.contract, "fp32")
    assert sidecar.contract.training_range == TRAINING_RANGE
    assert sidecar.source.weights_sha256 == file_sha256(weights)
    assert (sidecar.file_sha256, sidecar.file_bytes) == (file_sha256(model), model.stat().st_size)
    assert {"torch", "onnx", "etnet", "opset"} <= set(sidecar.versions)
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    inside = decode_sidecar(metadata[METADATA_KEY], origin="metadata")
    assert (inside.contract, inside.input, inside.source) == (sidecar.contract, sidecar.input, sidecar.source)
    assert inside.file_sha256 is None


def test_no_path_of_this_machine_is_in_the_file(pair):
    content = pair[1].read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content
    assert str(pair[0].parent).encode() not in content


def test_high_resolution_takes_every_multiple_of_16(exported_models, tmp_path):
    weights = exported_models("high_resolution")[0]
    export_onnx(weights, tmp_path / "model.onnx", size=None)
    assert_runs_as_in_torch(weights, tmp_path / "model.onnx", (1, 16, 16), (2, 16, 80), (3, 144, 32))


def test_a_free_size_takes_every_multiple_of_16(exported_models):
    weights, model = exported_models("three_classes")
    torch, onnxruntime_ = (open_backend(path, device="cpu").backend for path in (weights, model))
    for count, height, width in ((1, 16, 16), (2, 16, 80), (1, 144, 32), (5, 32, 32)):
        images = photographs(count, height, width)
        expected, found = torch.run(images), onnxruntime_.run(images)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)


def test_half_precision_holds_half_weights_and_gives_float_probabilities(exported_models, tmp_path):
    weights, exact = exported_models("two_classes")
    path = tmp_path / "half.onnx"
    sidecar = export_onnx(weights, path, precision="fp16", size=(48, 64))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert sidecar.precision == "fp16"
    stored = {item.data_type: 0 for item in model.graph.initializer}
    for item in model.graph.initializer:
        stored[item.data_type] += int(np.prod(item.dims))
    # All but the mean, the standard deviation and the constants of the last step.
    assert stored[FLOAT] < 20 < 1000 < stored[FLOAT16]
    assert operators(model)["BatchNormalization"] == 0
    images = photographs(2, 48, 64)
    full, half = (open_backend(file).backend.run(images) for file in (exact, path))
    assert half.probabilities.dtype == np.float32
    assert not np.array_equal(half.probabilities, full.probabilities)
    np.testing.assert_allclose(half.probabilities, full.probabilities, atol=0.05)
    assert np.mean(half.labels != full.labels) < 0.005


def test_the_encoder_of_the_paper_is_folded_at_a_fixed_size(tmp_path):
    """ResNet-50 has the stem and the bottlenecks that the test network lacks."""
    from helpers.weights import small_recipe

    recipe = small_recipe()
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"encoder": "resnet50"})})
    weights = write_confident(tmp_path / "best.safetensors", recipe)
    export_onnx(weights, tmp_path / "model.onnx", size=(64, 64))
    assert operators(onnx.load(tmp_path / "model.onnx"))["BatchNormalization"] == 0


def test_the_file_runs_without_optimisation_too(pair):
    """What other runtimes see, before ONNX Runtime rewrites anything."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(pair[1], options, providers=["CPUExecutionProvider"])
    images = photographs(1, 48, 64)
    (labels,) = session.run(["labels"], {"image": images})
    expected = open_backend(pair[0], device="cpu").backend.run(images).labels
    assert np.mean(labels != expected) < 0.001


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((500, 512), "496x512"),
        ((512, 8), "512x16"),
        ((0, 16), "16x16"),
        ((16, 65552), "16x65536"),
        ((-16, 16), "16x16"),
    ],
)
def test_a_size_that_cannot_be_names_the_nearest_that_can(size, nearest):
    with pytest.raises(UsageError, match=rf"multiples of 16.* {nearest}"):
        check_input(size, (1, 1, 8), multiple=16)


@pytest.mark.parametrize("batch", [(0, 1, 8), (2, 1, 8), (1, 9, 8), (1, 1, 5000)])
def test_batches_out_of_order_are_refused(batch):
    with pytest.raises(UsageError, match="ascending order"):
        check_input(None, batch, multiple=16)


def test_a_refused_size_leaves_no_file(exported_models, tmp_path):
    with pytest.raises(UsageError):
        export_onnx(exported_models("two_classes")[0], tmp_path / "model.onnx", size=(50, 50))
    assert list(tmp_path.iterdir()) == []


def recipe_of(name: str, *, polar: bool = False) -> Recipe:
    recipe = small_recipe()
    changes: dict = {"model": ModelSection(**{**recipe.model.model_dump(), "name": name, "polar": polar})}
    if polar:
        changes["data"] = recipe.data.model_copy(update={"roi": RoiSection(side=0.3, size=64)})
    return recipe.model_copy(update=changes)


def assert_runs_as_in_torch(weights: Path, model: Path, *sizes: tuple[int, int, int]) -> None:
    """Probabilities, labels and edges of an exported network against PyTorch."""
    onnx.checker.check_model(onnx.load(model), full_check=True)
    assert operators(onnx.load(model))["BatchNormalization"] == 0
    assert not {"If", "Loop", "NonZero"} & set(operators(onnx.load(model)))
    torch, onnxruntime_ = (open_backend(path, device="cpu").backend for path in (weights, model))
    for count, height, width in sizes:
        images = photographs(count, height, width)
        expected, found = torch.run(images), onnxruntime_.run(images)
        assert expected.probabilities.std() > 0.01
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        assert np.mean(found.labels != expected.labels) < 0.001
        assert (found.edges is None) == (expected.edges is None)


@pytest.mark.parametrize(("name", "polar"), [*((name, False) for name in NETWORKS if name != "etnet"), ("mnet", True)])
def test_every_network_is_exported(name, polar, tmp_path):
    weights = write_confident(tmp_path / "best.safetensors", recipe_of(name, polar=polar))
    # A region of interest has one size.
    size = (64, 64) if polar else (64, 96)
    export_onnx(weights, tmp_path / "model.onnx", size=size)
    assert_runs_as_in_torch(weights, tmp_path / "model.onnx", (1, *size), (3, *size))


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name, traits in NETWORKS.items() if traits.exports_free_size])
def test_every_network_but_one_is_exported_for_all_sizes(name, tmp_path):
    weights = write_confident(tmp_path / "best.safetensors", recipe_of(name))
    export_onnx(weights, tmp_path / "model.onnx", size=None)
    assert_runs_as_in_torch(weights, tmp_path / "model.onnx", (1, 32, 64), (2, 160, 96))


def test_a_network_that_needs_one_size_says_so(tmp_path):
    weights = write_confident(tmp_path / "best.safetensors", recipe_of("pspnet"))
    with pytest.raises(UsageError, match="pspnet cannot be exported for all sizes at once; name one"):
        export_onnx(weights, tmp_path / "model.onnx", size=None)
    assert not (tmp_path / "model.onnx").exists()
