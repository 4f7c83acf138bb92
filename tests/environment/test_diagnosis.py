"""What follows from given findings; the findings themselves are made up here, so that every machine can be played."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from etnet import native
from etnet.environment import diagnosis
from etnet.environment.diagnosis import backend_names, diagnose, runs_on
from etnet.environment.imports import ImportOutcome
from etnet.environment.packages import BASE, OTHER, Wanted, install_command

WANTED = [
    Wanted("numpy", BASE, ">=1.26"),
    Wanted("torch", "train", ">=2.5"),
    Wanted("timm", "train", ">=1.0"),
    Wanted("safetensors", "train", ">=0.4"),
    Wanted("onnxruntime", OTHER, ""),
    Wanted("tensorrt", OTHER, ""),
    Wanted("tensorrt-rtx", OTHER, ""),
]
GPU = {"name": "NVIDIA H200", "compute_capability": "9.0", "memory_bytes": 150_000_000_000}
NATIVE = {
    "loaded": True,
    "reason": "",
    "path": "/x/_native.so",
    "build": {"compiler": "12.2.0", "cuda": "13.0.88", "cuda_architectures": "80 90 120"},
}


class PlayedMachine:
    """Outcomes of the imports on a machine, changed by each test."""

    def __init__(self) -> None:
        self.outcomes = {
            "etnet.native": ImportOutcome(None, details=NATIVE),
            "etnet.environment.cuda_driver": ImportOutcome(
                None, details={"reason": "no NVIDIA driver", "driver": None, "cuda": None, "gpus": []}
            ),
            "numpy": ImportOutcome(None, "2.0"),
            "torch": ImportOutcome(None, "2.9", {"cuda_build": None, "gpus": [], "targets": []}),
            "timm": ImportOutcome(None, "1.0.20"),
            "safetensors": ImportOutcome(None, "0.5"),
        }

    def remove(self, *modules: str) -> None:
        for name in modules:
            del self.outcomes[name]

    def add_gpu(self, *, seen_by_torch: bool = True, torch_build: str | None = "13.0", **changes: object) -> None:
        found = {"reason": "", "driver": "580.82.07", "cuda": "13.0", "gpus": [{**GPU, **changes}]}
        self.outcomes["etnet.environment.cuda_driver"] = ImportOutcome(None, details=found)
        gpus = ["NVIDIA H200"] if seen_by_torch else []
        self.outcomes["torch"] = ImportOutcome(None, "2.9", {"cuda_build": torch_build, "gpus": gpus, "targets": []})


@pytest.fixture
def played(monkeypatch):
    played = PlayedMachine()
    monkeypatch.setattr(diagnosis, "try_imports", lambda modules, timeout: played.outcomes)
    monkeypatch.setattr(diagnosis, "is_findable", lambda module: module in played.outcomes)
    monkeypatch.setattr(diagnosis, "wanted_packages", lambda: WANTED)
    monkeypatch.setattr(diagnosis, "backend_names", lambda: ["onnxruntime", "tensorrt", "torch"])
    monkeypatch.setattr("etnet.environment.packages._recorded_version", lambda name: None)
    return played


def abilities(found):
    return {ability.name: (ability.possible, ability.note) for ability in (found.training, *found.backends)}


def test_a_machine_without_a_gpu_trains_on_the_cpu(played, tmp_path):
    found = diagnose(tmp_path)
    assert abilities(found) == {
        "train": (True, "CPU"),
        "torch": (True, "CPU"),
        "onnxruntime": (False, "onnxruntime is missing"),
        "tensorrt": (False, "tensorrt is missing"),
    }
    assert (found.faults, found.hints) == ((), ())


def test_a_gpu_is_used_where_torch_sees_it(played, tmp_path):
    played.add_gpu()
    found = diagnose(tmp_path)
    assert found.training.note == "GPU (NVIDIA H200)"
    assert found.driver.gpus[0].native_kernels
    assert found.hints == ()


def test_a_deployment_machine_without_torch_is_not_broken(played, tmp_path):
    played.remove("torch", "timm", "safetensors")
    played.outcomes["onnxruntime"] = ImportOutcome(None, "1.22")
    found = diagnose(tmp_path)
    assert found.faults == ()
    assert abilities(found)["train"] == (False, "torch is missing, timm is missing, safetensors is missing")
    assert abilities(found)["onnxruntime"] == (True, "CPU")
    (hint,) = found.hints
    assert hint.what == "train: torch, timm, safetensors not installed"
    assert hint.remedy == install_command("train")


def test_a_package_that_does_not_import_is_a_fault_with_its_reason(played, tmp_path):
    played.outcomes["timm"] = ImportOutcome("RuntimeError: operator torchvision::nms does not exist")
    found = diagnose(tmp_path)
    (fault,) = found.faults
    assert fault.what == "timm is broken (RuntimeError: operator torchvision::nms does not exist)"
    assert fault.remedy.endswith("pip install --force-reinstall --no-deps 'timm>=1.0'")
    assert not found.training.possible
    assert abilities(found)["torch"] == (False, "timm is broken")


def test_a_version_that_is_too_old_is_a_fault(played, tmp_path):
    played.outcomes["torch"] = ImportOutcome(None, "2.1.0+cpu", {"cuda_build": None, "gpus": [], "targets": []})
    (fault,) = diagnose(tmp_path).faults
    assert fault.what == "torch 2.1.0+cpu is too old (expected >=2.5)"
    assert fault.remedy.endswith("pip install --upgrade 'torch>=2.5'")


def test_a_missing_package_of_the_base_is_a_fault(played, tmp_path):
    played.remove("numpy")
    (fault,) = diagnose(tmp_path).faults
    assert "numpy is missing" in fault.what
    assert fault.remedy == install_command(BASE)


def test_a_broken_deployment_package_that_nothing_uses_is_only_a_hint(played, tmp_path):
    played.outcomes["onnxruntime"] = ImportOutcome("ImportError: libonnx.so")
    found = diagnose(tmp_path)
    assert found.faults == ()
    assert [hint.what for hint in found.hints] == ["onnxruntime is broken (ImportError: libonnx.so)"]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (ImportOutcome(None, details={"loaded": False, "reason": "interface 1 where 2"}), "interface 1 where 2"),
        (
            ImportOutcome("the import crashed Python (SIGILL)"),
            "the native module cannot be loaded (the import crashed Python (SIGILL))",
        ),
    ],
    ids=["stale", "crashing"],
)
def test_a_native_module_that_cannot_be_used_is_a_fault(played, tmp_path, outcome, reason):
    played.outcomes["etnet.native"] = outcome
    found = diagnose(tmp_path)
    assert not found.native_module.usable
    (fault,) = found.faults
    assert fault.what == reason
    assert fault.remedy == native.REBUILD
    assert found.training.possible


@pytest.mark.parametrize(
    ("build", "why"), [(None, "is built without CUDA"), ("13.1", "is built for CUDA 13.1, the driver runs up to 13.0")]
)
def test_a_gpu_that_torch_does_not_see_is_explained(played, tmp_path, build, why):
    played.add_gpu(seen_by_torch=False, torch_build=build)
    found = diagnose(tmp_path)
    (hint,) = found.hints
    assert hint.what == f"torch does not see the NVIDIA H200: it {why}"
    assert found.training.note == "CPU"


def test_a_gpu_without_native_kernels_is_explained(played, tmp_path):
    played.add_gpu(compute_capability="7.5")
    (hint,) = diagnose(tmp_path).hints
    assert "compute capabilities 80 90 120: no kernels for the NVIDIA H200" in hint.what


def test_tensorrt_runs_with_any_of_its_packages_and_a_gpu(played, tmp_path):
    played.outcomes["tensorrt_rtx"] = ImportOutcome(None, "1.5")
    assert abilities(diagnose(tmp_path))["tensorrt"] == (False, "no NVIDIA driver")
    played.add_gpu()
    assert abilities(diagnose(tmp_path))["tensorrt"] == (True, "NVIDIA H200")
    played.outcomes["tensorrt_rtx"] = ImportOutcome("ImportError: libtensorrt_rtx.so.1")
    assert abilities(diagnose(tmp_path))["tensorrt"] == (False, "tensorrt-rtx is broken")


def test_a_driver_that_crashes_is_a_reason(played, tmp_path):
    played.outcomes["etnet.environment.cuda_driver"] = ImportOutcome("the import crashed Python (SIGSEGV)")
    assert diagnose(tmp_path).driver.reason == "the import crashed Python (SIGSEGV)"


def test_a_folder_that_cannot_be_written_is_a_fault(played, tmp_path):
    (tmp_path / "runs").write_text("a file")
    (fault,) = diagnose(tmp_path / "runs").faults
    assert "cannot be written" in fault.what


@pytest.mark.parametrize(
    ("targets", "capability", "runs"),
    [
        ("80 90 120", "8.0", True),
        ("80 90 120", "8.9", True),
        ("80 90 120", "9.0", True),
        ("80 90 120", "7.0", False),
        ("86 90", "8.0", False),
        ("80 90 120", "10.3", False),
        ("80 90", "10.3", True),
        ("80 90 120", "12.1", True),
        ("80 90 120", "13.0", True),
        ("", "9.0", False),
    ],
)
def test_kernels_run_within_their_generation_and_above_their_ptx(targets, capability, runs):
    assert runs_on(targets, capability) is runs


def test_findings_are_json(played, tmp_path):
    played.add_gpu()
    content = json.loads(json.dumps(diagnose(tmp_path).as_dict(), allow_nan=False))
    assert content["driver"]["gpus"][0]["name"] == "NVIDIA H200"
    assert content["packages"][0]["state"] == "ok"


def test_backends_are_the_files_of_this_version():
    folder = Path(diagnosis.etnet.__file__).parent / "inference" / "backends"
    assert backend_names() == sorted(path.name.split("_backend")[0] for path in folder.glob("*_backend.py"))
    assert "torch" in backend_names()
