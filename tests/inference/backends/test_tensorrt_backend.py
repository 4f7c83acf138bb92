"""The back-end over a runner on a GPU of Python; the runner itself is tested in tests/trt."""

from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference.backends import MeasurableBackend
from etnet.inference.backends.tensorrt_backend import TensorRtBackend, gpu_number, open_model
from etnet.inference.predictor import Predictor
from etnet.trt.driver import Driver
from etnet.trt.plan import Placement
from etnet.trt.runtime import EngineRunner, load_engine
from helpers.engines import A10, engine_sidecar, write_engine_file
from helpers.fake_gpu import FakeEngine, FakeGpu, expected_outputs, fake_runtime


@pytest.fixture
def backend(tmp_path):
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    gpu = FakeGpu()
    sidecar = engine_sidecar((16, 32))
    loaded = load_engine(path, sidecar, Placement(fake_runtime(FakeEngine(gpu, size=(16, 32))), A10))
    return TensorRtBackend(EngineRunner(path, sidecar, loaded, gpu, gpu=A10.name))


def images(count):
    return np.random.default_rng(count).integers(0, 256, (count, 16, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 3])
def test_outputs_are_those_of_the_engine(backend, count):
    batch = images(count)
    wanted = expected_outputs(batch)
    found = backend.run(batch)
    for name in ("labels", "edges", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), wanted[name])
    assert backend.run(batch, probabilities=False).probabilities is None


def test_its_stages_are_told_apart_and_say_the_same(backend):
    assert isinstance(backend, MeasurableBackend)
    batch = images(2)
    wanted = expected_outputs(batch)
    for _ in range(4):
        found, seconds = backend.run_in_stages(batch, probabilities=False)
        np.testing.assert_array_equal(found.labels, wanted["labels"])
        np.testing.assert_array_equal(found.edges, wanted["edges"])
        assert found.probabilities is None
        assert list(seconds) == ["copy_in", "compute", "copy_out"]
        assert all(value > 0 for value in seconds.values())
    with pytest.raises(UsageError, match="takes 1 to 4 images"):
        backend.run_in_stages(images(5))


def test_it_says_what_it_takes_and_where_it_runs(backend):
    assert backend.name == "tensorrt NVIDIA A10"
    assert backend.input_size == (16, 32)
    assert backend.max_batch == 4


def test_a_predictor_splits_what_is_more_than_the_engine_takes(backend):
    batch = list(images(10))
    predictor = Predictor(backend, backend.runner.sidecar.contract)
    found = predictor.predict_batch(batch)
    wanted = expected_outputs(np.stack(batch))["labels"]
    np.testing.assert_array_equal(np.stack([prediction.labels for prediction in found]), wanted)


def test_closing_closes_the_engine(backend):
    backend.close()
    with pytest.raises(UsageError, match="the engine was closed"):
        backend.run(images(1))


def test_devices_are_gpus():
    assert [gpu_number(device) for device in ("auto", "cuda", "cuda:3")] == [0, 0, 3]
    for device in ("cpu", "gpu", "cuda:", "cuda:-1"):
        with pytest.raises(UsageError, match=r"expected auto, cuda or cuda:N"):
            gpu_number(device)


def test_an_engine_without_a_gpu_is_a_sentence_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("etnet.trt.plan.ask_driver", lambda: Driver(problem="no NVIDIA driver"))
    path = write_engine_file(tmp_path / "model.engine")
    with pytest.raises(
        EnvironmentFault,
        match=r"none can be used here: no NVIDIA driver.*etnet infer IMAGES",
    ):
        Predictor.load(path)
    with pytest.raises(UsageError, match="--threads"):
        open_model(path, device="auto", threads=2)
