from __future__ import annotations

import contextlib
import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.inference.backends import torch_backend
from etnet.inference.backends.torch_backend import TorchBackend, resolve_device
from etnet.inference.predictor import Predictor
from etnet.models import ETNetOutput, build_model
from etnet.types import Contract
from helpers.backends import contract
from helpers.weights import small_recipe, write_untrained


class Channels(nn.Module):
    """Gives the normalised channels as logits, so that the arithmetic around a network can be checked."""

    def __init__(self, *, edges: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.edges = edges

    def forward(self, image: torch.Tensor) -> ETNetOutput:
        scaled = image * self.scale
        return ETNetOutput(scaled, scaled[:, :2] if self.edges else None)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    exponent = np.exp(logits - logits.max(axis, keepdims=True))
    return exponent / exponent.sum(axis, keepdims=True)


def test_images_are_normalised_and_logits_become_probabilities():
    rules = Contract(contract().class_names, contract().class_colors, mean=(10.0, 20.0, 30.0), std=(40.0, 50.0, 60.0))
    images = noise(2, 16, 32)
    labels, edges, probabilities = TorchBackend(Channels(), rules, device="cpu").run(images)
    logits = np.moveaxis((images - np.array(rules.mean)) / np.array(rules.std), -1, 1)
    np.testing.assert_allclose(probabilities, softmax(logits, 1), atol=1e-6)
    np.testing.assert_array_equal(labels, logits.argmax(1))
    # Half a step of rounding, and a little for float32.
    np.testing.assert_allclose(edges, softmax(logits[:, :2], 1)[:, 1] * 255, atol=0.501)
    assert (probabilities.dtype, labels.dtype, edges.dtype) == (np.float32, np.uint8, np.uint8)
    assert probabilities.flags.c_contiguous


def test_a_network_without_edges_gives_none():
    assert TorchBackend(Channels(edges=False), contract(), device="cpu").run(noise(1, 16, 16)).edges is None


def test_the_network_is_put_into_evaluation_mode_and_no_gradient_is_kept():
    network = build_model(small_recipe().model, 3).train()
    backend = TorchBackend(network, contract(), device="cpu")
    assert not network.training
    first, second = backend.run(noise(2, 32, 32)), backend.run(noise(2, 32, 32))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_images_of_a_batch_do_not_influence_each_other():
    backend = TorchBackend(build_model(small_recipe().model, 3), contract(), device="cpu")
    images = noise(3, 32, 48)
    together = backend.run(images).probabilities
    for index in range(3):
        np.testing.assert_allclose(backend.run(images[index : index + 1]).probabilities[0], together[index], atol=1e-5)


def test_a_weights_file_gives_the_predictions_of_its_network(tmp_path):
    recipe = small_recipe()
    weights = write_untrained(tmp_path / "weights/best.safetensors", recipe, seed=3)
    torch.manual_seed(3)
    network = build_model(recipe.model, 3)
    expected = Predictor(TorchBackend(network, recipe.contract(), device="cpu"), recipe.contract())
    for path in (weights, tmp_path):
        loaded = Predictor.load(path, device="cpu")
        image = noise(50, 41)
        np.testing.assert_array_equal(loaded.predict(image).probabilities, expected.predict(image).probabilities)
        assert loaded.contract == recipe.contract()


def test_the_precision_is_used(tmp_path):
    network = build_model(small_recipe().model, 3)
    exact = TorchBackend(network, contract(), device="cpu").run(noise(1, 32, 32)).probabilities
    short = TorchBackend(network, contract(), device="cpu", precision="bfloat16").run(noise(1, 32, 32)).probabilities
    assert short.dtype == np.float32
    assert not np.array_equal(short, exact)
    np.testing.assert_allclose(short, exact, atol=0.1)


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_holds_no_weights_is_one_sentence(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\.safetensors"):
        Predictor.load(path, device="cpu")


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "mps", "cuda:1:2", "cpu:1"])
def test_an_unknown_device_names_the_choices(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device(device)


def test_a_missing_gpu_says_what_torch_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match="--device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EnvironmentFault, match=r"cuda:7.*1 GPU"):
        resolve_device("cuda:7")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_sentence_with_the_size(error, monkeypatch):
    backend = TorchBackend(Channels(), contract(), device="cpu")

    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr(backend, "_upload", fail)
    with pytest.raises(EnvironmentFault, match=r"too little memory for 1 image\(s\) of 16x32 pixels"):
        backend.run(noise(1, 16, 32))


def test_other_errors_of_torch_are_not_hidden(monkeypatch):
    backend = TorchBackend(Channels(), contract(), device="cpu")

    def fail(*_arguments, **_options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(backend, "_upload", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        backend.run(noise(1, 16, 16))


@pytest.mark.gpu
def test_a_gpu_gives_the_masks_of_the_cpu():
    network = build_model(small_recipe().model, 3)
    image = noise(70, 90)
    on_cpu = Predictor(TorchBackend(network, contract(), device="cpu"), contract()).predict(image)
    on_gpu = Predictor(TorchBackend(network, contract(), device="cuda"), contract()).predict(image)
    assert torch_backend.resolve_device("auto").type == "cuda"
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=2e-3)
    assert np.mean(on_gpu.labels != on_cpu.labels) < 1e-3


def test_a_lower_precision_leaves_the_callers_network_alone():
    network = build_model(small_recipe().model, 3)
    TorchBackend(network, contract(), device="cpu", precision="bfloat16")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_name_tells_precision_and_compilation():
    network = build_model(small_recipe().model, 3)
    backend = TorchBackend(network, contract(), device="cpu", precision="bfloat16", compiled=True)
    assert backend.name == "torch cpu bfloat16 compiled"


def test_a_compiled_network_gives_the_same_labels():
    network = build_model(small_recipe().model, 3)
    images = noise(2, 32, 48)
    expected = TorchBackend(network, contract(), device="cpu").run(images)
    compiled = TorchBackend(network, contract(), device="cpu", compiled=True).run(images)
    np.testing.assert_array_equal(compiled.labels, expected.labels)
    np.testing.assert_allclose(compiled.probabilities, expected.probabilities, atol=1e-5)


def test_the_layout_of_the_maps_changes_no_label():
    network = build_model(small_recipe().model, 3)
    images = noise(2, 32, 48)
    expected = TorchBackend(network, contract(), device="cpu").run(images)
    plain = TorchBackend(network, contract(), device="cpu", channels_last=False)
    assert plain.name == "torch cpu nchw"
    assert network.classifier.weight.is_contiguous()
    np.testing.assert_allclose(plain.run(images).probabilities, expected.probabilities, atol=1e-5)


def test_stages_of_a_cpu_are_computing_alone():
    network = build_model(small_recipe().model, 3)
    backend = TorchBackend(network, contract(), device="cpu")
    outputs, seconds = backend.run_in_stages(noise(1, 32, 32))
    assert list(seconds) == ["compute"]
    assert seconds["compute"] > 0
    np.testing.assert_array_equal(outputs.labels, backend.run(noise(1, 32, 32)).labels)


class Watching(Channels):
    """Notes whether torch may round float32 products while it runs."""

    def forward(self, image: torch.Tensor) -> ETNetOutput:
        self.seen = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return super().forward(image)


@pytest.mark.parametrize(("options", "during"), [({}, (False, False)), ({"tf32": None}, (False, True))])
def test_float32_is_computed_without_tf32_unless_torch_is_to_decide(options, during):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert before == (False, True), "as torch comes"
    network = Watching()
    TorchBackend(network, contract(), device="cpu", **options).run(noise(1, 16, 16))
    assert network.seen == during
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.gpu
def test_tf32_rounds_and_float32_does_not_whatever_torch_is_set_to():
    network = build_model(small_recipe().model, 3)
    images = noise(1, 64, 64)
    exact = TorchBackend(network, contract(), device="cpu").run(images).probabilities
    errors = {}
    for allowed in (False, True):
        found = TorchBackend(network, contract(), device="cuda", tf32=allowed).run(images).probabilities
        errors[allowed] = np.abs(found - exact).max()
    assert errors[False] < 1e-4
    if torch.cuda.get_device_capability() >= (8, 0):
        assert errors[False] < errors[True]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tf32": True, "precision": "float16"}, "tf32 is a way to compute float32, but the precision is float16"),
        ({"compiler": "tensorrt"}, "the compiler is tensorrt, but compiled is False"),
        ({"cuda_graph": True, "compiled": True}, "cuda_graph is for a network that is not compiled"),
    ],
)
def test_options_that_would_have_no_effect_beside_each_other_are_refused(options, sentence, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=sentence):
        TorchBackend(Channels(), contract(), device="cuda", **options)


class RecordingGraph:
    """Stands for a CUDA graph on a processor: what was computed while it was entered is computed again by `replay`."""

    current = None
    captures = 0

    def __init__(self, graph=None, **_options):
        self.graph = graph

    def __enter__(self):
        type(self).current, type(self).captures = self.graph, type(self).captures + 1

    def __exit__(self, *_):
        type(self).current = None

    def replay(self):
        for kept, new in zip(self.outputs, self.compute(), strict=True):
            if kept is not None:
                kept.copy_(new)


@pytest.fixture
def graphs_on_the_processor(monkeypatch):
    RecordingGraph.captures = 0
    nothing = contextlib.nullcontext()

    class Stream:
        def wait_stream(self, _other):
            pass

    for name, stand_in in {
        "device": lambda _device: nothing,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda _stream: nothing,
        "CUDAGraph": RecordingGraph,
        "graph": RecordingGraph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


def recorded(compute):
    def run(images, *, probabilities):
        outputs = compute(images, probabilities=probabilities)
        if RecordingGraph.current is not None:
            RecordingGraph.current.outputs = outputs
            RecordingGraph.current.compute = lambda: compute(images, probabilities=probabilities)
        return outputs

    return run


def test_a_graph_is_captured_for_each_new_shape_and_replayed_for_the_same(graphs_on_the_processor):
    backend = TorchBackend(build_model(small_recipe().model, 3), contract(), device="cpu")
    graphed = torch_backend._Graphed(recorded(backend._compute))
    captures, one, two = [], (1, 32, 48), (2, 32, 32)
    for seed, (shape, wanted) in enumerate([(one, True), (one, True), (two, True), (two, False), (two, False)]):
        images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8))
        with torch.inference_mode():
            found = graphed(images, probabilities=wanted)
            expected = backend._compute(images, probabilities=wanted)
        for output, other in zip(found, expected, strict=True):
            assert (output is None) == (other is None)
            assert output is None or torch.equal(output, other)
        captures.append(RecordingGraph.captures)
    assert captures == [1, 1, 2, 3, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_graph_gives_what_single_kernels_give(precision):
    network = build_model(small_recipe().model, 3)
    single = TorchBackend(network, contract(), device="cuda", precision=precision)
    graphed = TorchBackend(network, contract(), device="cuda", precision=precision, cuda_graph=True)
    assert graphed.name.endswith("graph")
    for shape in ((1, 64, 64), (1, 64, 64), (3, 32, 48), (1, 64, 64)):
        images = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)
        one, other = single.run(images), graphed.run(images)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)
        assert np.mean(one.labels != other.labels) < 1e-3


def test_a_missing_torch_tensorrt_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EnvironmentFault, match=r"torch-tensorrt is not installed .* pip install torch-tensorrt$"):
        torch_backend._with_tensorrt(nn.Conv2d(1, 1, 1), tf32=False)


@pytest.mark.parametrize("explicit", [True, False])
def test_torch_tensorrt_is_told_the_precision_as_its_version_wants_it(monkeypatch, explicit):
    names = ["pass_through_build_failures", "disable_tf32"]
    names.append("use_explicit_typing" if explicit else "enabled_precisions")
    settings = dataclasses.make_dataclass("CompilationSettings", names)
    dynamo = types.SimpleNamespace(CompilationSettings=settings)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", types.SimpleNamespace(dynamo=dynamo))
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.update(options))
    torch_backend._with_tensorrt(nn.Conv2d(1, 1, 1).half(), tf32=False)
    precision = {"use_explicit_typing": True} if explicit else {"enabled_precisions": {torch.float16}}
    assert asked["backend"] == "torch_tensorrt"
    assert asked["options"] == {"pass_through_build_failures": True, "disable_tf32": True, **precision}
