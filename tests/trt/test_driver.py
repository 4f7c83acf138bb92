"""The driver library is replaced by one that answers through the same C pointers."""

from __future__ import annotations

from etnet.trt import driver
from etnet.trt.driver import Gpu, query


class FakeCuda:
    """Writes its answers where the pointers of ctypes point to, like libcuda."""

    def __init__(self, *gpus: tuple[str, int, int], init: int = 0, version: int = 13010) -> None:
        self.gpus = gpus
        self.init = init
        self.version = version

    def cuInit(self, _flags):
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def cuDriverGetVersion(self, number):
        number._obj.value = self.version
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, buffer, length, device):
        name = self.gpus[device.value][0].encode()
        assert length > len(name)
        buffer.value = name
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.gpus[device.value][{75: 1, 76: 2}[attribute]]
        return 0


def test_every_gpu_is_described():
    answer = query(lambda: FakeCuda(("NVIDIA A10", 8, 6), ("NVIDIA GeForce RTX 5090", 12, 0)))
    assert answer.gpus == (Gpu(0, "NVIDIA A10", (8, 6)), Gpu(1, "NVIDIA GeForce RTX 5090", (12, 0)))
    assert [gpu.target for gpu in answer.gpus] == ["sm86", "sm120"]
    assert answer.cuda_version == "13.1"
    assert answer.problem == ""


def test_without_a_driver_the_reason_is_named():
    def load():
        raise OSError("libcuda.so.1: cannot open shared object file")

    answer = query(load)
    assert answer.gpus == ()
    assert "no NVIDIA driver is installed" in answer.problem


def test_a_driver_without_a_gpu_is_told_from_one_that_fails():
    assert "it sees no GPU" in query(lambda: FakeCuda(init=100)).problem
    assert "cuInit returned error 999" in query(lambda: FakeCuda(init=999)).problem
    assert "sees no GPU" in query(FakeCuda).problem


def test_the_version_of_the_driver_is_that_of_its_kernel_module(monkeypatch, tmp_path):
    (tmp_path / "version").write_text("580.95.05\n")
    monkeypatch.setattr(driver, "_KERNEL_MODULE_VERSION", tmp_path / "version")
    assert query(lambda: FakeCuda(("NVIDIA A10", 8, 6))).version == "580.95.05"
    monkeypatch.setattr(driver, "_KERNEL_MODULE_VERSION", tmp_path / "nothing")
    assert query(lambda: FakeCuda(("NVIDIA A10", 8, 6))).version is None
