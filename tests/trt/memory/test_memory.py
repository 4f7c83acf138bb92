from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from etnet.errors import EnvironmentFault, UsageError
from etnet.trt import memory
from etnet.trt.memory import DeviceView, interface_view, open_memory


class OnGpu:
    """An array as CuPy, Numba and PyCUDA describe theirs."""

    def __init__(self, shape, typestr="|u1", strides=None):
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "strides": strides,
            "data": (4096, False),
            "version": 3,
        }


def test_arrays_on_the_gpu_are_read_by_their_common_interface():
    assert interface_view(OnGpu((2, 16, 32, 3))) == DeviceView(4096, (2, 16, 32, 3), np.dtype(np.uint8))
    numpy_strides = np.empty((2, 5, 3), np.float32).strides
    assert interface_view(OnGpu((2, 5, 3), "<f4", numpy_strides)).dtype == np.float32


def test_arrays_with_gaps_and_arrays_of_the_host_are_refused():
    turned = np.empty((2, 3, 16, 32), np.uint8).transpose(0, 2, 3, 1)
    with pytest.raises(UsageError, match="expected a contiguous array on the GPU, got strides"):
        interface_view(OnGpu(turned.shape, strides=turned.strides))
    with pytest.raises(UsageError, match="expected an array on the GPU, got ndarray"):
        interface_view(np.zeros((2, 2)))


def test_an_unknown_provider_is_refused():
    with pytest.raises(UsageError, match="memory is 'cupy'; expected auto, torch, cuda, pycuda"):
        open_memory("cupy")


@pytest.mark.parametrize("name", ["torch", "cuda", "pycuda"])
def test_a_provider_that_is_not_installed_is_named_with_its_command(monkeypatch, name):
    monkeypatch.setattr(memory, "_is_installed", lambda package: False)
    with pytest.raises(EnvironmentFault, match=rf"memory {name} is not installed here; install it with: pip install"):
        open_memory(name)
    with pytest.raises(EnvironmentFault, match=r"pip install 'etnet\[tensorrt\]'"):
        open_memory()


def test_auto_takes_torch_first_then_cuda_python(monkeypatch):
    opened: list[str] = []

    class Module:
        def __init__(self, name):
            self.name = name

        def open_memory(self, device):
            opened.append(self.name.rsplit(".", 1)[1])

    monkeypatch.setattr("importlib.import_module", Module)
    open_memory()
    monkeypatch.setattr(memory, "_is_installed", lambda package: package != "torch")
    open_memory()
    monkeypatch.setattr(memory, "_is_installed", lambda package: package == "pycuda")
    open_memory()
    assert opened == ["torch_memory", "cuda_memory", "pycuda_memory"]


def test_auto_goes_on_where_torch_cannot_use_the_gpu(monkeypatch):
    class Module:
        def __init__(self, name):
            self.name = name

        def open_memory(self, device):
            if "torch" in self.name:
                raise EnvironmentFault("torch sees no GPU")
            if "pycuda" in self.name:
                raise EnvironmentFault("PyCUDA neither")
            return self.name

    monkeypatch.setattr("importlib.import_module", Module)
    monkeypatch.setattr(memory, "_is_installed", lambda package: True)
    assert open_memory() == "etnet.trt.memory.cuda_memory"
    monkeypatch.setattr(memory, "_is_installed", lambda package: package != "cuda.bindings")
    with pytest.raises(EnvironmentFault, match="torch sees no GPU / PyCUDA neither"):
        open_memory()


def test_a_package_whose_parent_is_missing_counts_as_missing():
    assert not memory._is_installed("no_such_parent.child")
    assert memory._is_installed("numpy")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_torch_without_a_gpu_is_a_sentence():
    with pytest.raises(EnvironmentFault, match=r"torch .* sees no GPU 0.*pip install 'etnet\[tensorrt\]'"):
        open_memory("torch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-python is not installed")
def test_cuda_python_without_a_driver_is_a_sentence():
    with pytest.raises(EnvironmentFault, match="the GPU failed in cudaGetDeviceCount: CUDA driver version is insuffic"):
        open_memory("cuda")
