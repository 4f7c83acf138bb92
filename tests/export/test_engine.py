"""The way from trained weights to an engine, with engines built for real by TensorRT-RTX."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etnet.errors import CheckFailed, EnvironmentFault, ModelFileError
from etnet.export import engine as engine_module
from etnet.export.engine import build_checked
from etnet.export.quantize import quantize_onnx
from etnet.inference.backends import NetworkOutputs
from etnet.inference.compare import ComparisonImage
from etnet.inference.predictor import Predictor
from etnet.sidecar import file_sha256, read_sidecar, sidecar_path
from etnet.trt.builder import prepare_build
from etnet.trt.driver import Driver, Gpu
from etnet.trt.library import find_builder
from etnet.trt.plan import Placement
from etnet.trt.settings import BuildSettings
from helpers.backends import PixelBackend, contract, image_of, photographs, random_labels
from helpers.onnx_graphs import write_small_onnx

RTX = BuildSettings("tensorrt-rtx")
NO_GPU = Driver(problem="no NVIDIA driver")
RTX_3090 = Driver((Gpu(0, "NVIDIA GeForce RTX 3090", (8, 6)),), "580.95.05", "13.0")


@pytest.fixture(autouse=True)
def library():
    try:
        return find_builder("tensorrt-rtx")
    except EnvironmentFault as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", ["two_classes", "three_classes", "high_resolution"])
def test_exported_networks_become_engines(exported_models, tmp_path, kind):
    weights, onnx = exported_models(kind)
    free = read_sidecar(onnx).input.size is None
    settings = replace(RTX, size_profile=((16, 16), (48, 64), (64, 96)) if free else None)
    prepared = prepare_build(onnx, tmp_path / "model.engine", settings, driver=NO_GPU)
    built = build_checked(prepared, weights, [ComparisonImage("a", photographs(1, 64, 64)[0])])
    assert built.comparison is None
    assert built.not_compared == "it runs on a GPU only, and none can be used here: no NVIDIA driver"
    sidecar = read_sidecar(tmp_path / "model.engine")
    assert sidecar.source.weights_sha256 == file_sha256(weights)
    assert sidecar.engine.onnx_sha256 == file_sha256(onnx)
    assert sidecar.engine.layer_precisions == {"fp32": 1.0}


@pytest.mark.parametrize("kind", ["two_classes", "high_resolution"])
def test_an_exported_int8_network_becomes_an_engine_of_integers(exported_models, tmp_path, kind):
    source = exported_models(kind)[1]
    images = list(photographs(4, 40, 60, seed=1))
    onnx = tmp_path / "int8.onnx"
    quantize_onnx(source, onnx, read_sidecar(source), images, target="tensorrt")
    prepared = prepare_build(onnx, tmp_path / "int8.engine", replace(RTX, precision="int8"), driver=NO_GPU)
    built = build_checked(prepared, source, [])
    assert built.sidecar.precision == "int8"
    assert built.sidecar.engine.layer_precisions["int8"] > 0.5


def test_integers_for_processors_are_refused_with_the_command(exported_models, tmp_path):
    source = exported_models("two_classes")[1]
    onnx = tmp_path / "int8.onnx"
    quantize_onnx(source, onnx, read_sidecar(source), list(photographs(1, 40, 60)), target="processor")
    with pytest.raises(ModelFileError, match=r"made for processors.*--int8 --calibration IMAGES --backend"):
        prepare_build(onnx, tmp_path / "int8.engine", RTX, driver=NO_GPU)


class TestComparing:
    """With a GPU that is told and an engine that is played, because none can run here."""

    @pytest.fixture
    def prepared(self, tmp_path):
        onnx = write_small_onnx(tmp_path / "model.onnx", layers=1)
        return prepare_build(onnx, tmp_path / "model.engine", RTX, driver=RTX_3090)

    @pytest.fixture
    def play(self, monkeypatch, library):
        """Let the engine give the labels of `change(images)`."""

        def start(change=lambda images: images) -> None:
            class Played(PixelBackend):
                def run(self, images, *, probabilities=True) -> NetworkOutputs:
                    return super().run(change(images), probabilities=probabilities)

            def load(path, **options):
                return Predictor(Played(2) if path.suffix == ".engine" else PixelBackend(2), contract(2))

            monkeypatch.setattr(engine_module.Predictor, "load", load)
            placement = Placement(library, RTX_3090.gpus[0])
            monkeypatch.setattr(engine_module, "examine", lambda path, sidecar, driver: placement)

        return start

    @pytest.fixture
    def images(self):
        return [
            ComparisonImage(str(seed), image_of(random_labels(32, 48, seed=seed, num_classes=2))) for seed in (1, 2)
        ]

    def test_an_engine_that_agrees_gets_its_name_and_the_figures(self, prepared, play, images, tmp_path):
        play()
        told: list[str] = []
        built = build_checked(prepared, tmp_path / "model.onnx", images, progress=told.append)
        assert built.comparison.differing_labels == 0
        assert read_sidecar(prepared.output) == built.sidecar
        assert built.sidecar.verification["images"] == 2
        assert told == ["1", "2"]
        assert not list(tmp_path.glob(".etnet*"))

    def test_an_engine_that_disagrees_leaves_nothing(self, prepared, play, images, tmp_path):
        play(lambda images: np.zeros_like(images))
        with pytest.raises(CheckFailed, match=r"model\.engine: not written, because the engine loses 1\.0000 mean"):
            build_checked(prepared, tmp_path / "model.onnx", images)
        assert not prepared.output.exists()
        assert not sidecar_path(prepared.output).exists()
        assert not list(tmp_path.glob(".etnet*"))

    def test_an_engine_for_other_gpus_is_kept_and_says_that_it_was_not_compared(self, prepared, images, tmp_path):
        other = replace(prepared, driver=Driver((Gpu(0, "NVIDIA H100", (9, 0)),)))
        built = build_checked(other, tmp_path / "model.onnx", images)
        assert built.comparison is None
        assert "this NVIDIA H100 is sm90" in built.not_compared
        assert read_sidecar(prepared.output).verification is None

    def test_without_images_the_option_is_named(self, prepared, tmp_path):
        built = build_checked(prepared, tmp_path / "model.onnx", [])
        assert built.not_compared == "no images were given; name some with --verify DIR"
