"""cuda-python's functions are replaced one by one; their names and arguments are those of the installed package."""

from __future__ import annotations

import inspect
import re

import pytest

cudart = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")

from etnet.errors import EnvironmentFault  # noqa: E402 - after the skip
from etnet.trt.memory import cuda_memory  # noqa: E402
from etnet.trt.memory.cuda_memory import CudaMemory, CudaStream, call  # noqa: E402

SUCCESS = cudart.cudaError_t.cudaSuccess


@pytest.fixture
def calls(monkeypatch):
    """Every function of the runtime succeeds and is written down; the number of its arguments is checked."""
    log: list[tuple] = []
    results = {"cudaGetDeviceCount": (1,), "cudaGetDevice": (3,), "cudaGetErrorString": (b"a reason",)}

    def replacement(name: str):
        expected = len(inspect_arguments(name))

        def function(*arguments):
            assert len(arguments) == expected, (name, arguments)
            log.append((name, *arguments))
            return (SUCCESS, *results.get(name, (1000 + len(log),)))

        function.__name__ = name
        return function

    for name in re.findall(r"cudart\.(cuda[A-Z]\w+?)(?=[,()])", inspect.getsource(cuda_memory)):
        if callable(getattr(cudart, name)) and not inspect.isclass(getattr(cudart, name)):
            monkeypatch.setattr(cudart, name, replacement(name))
    return log


def inspect_arguments(name: str) -> list[str]:
    """Argument names in the first line of the documentation, which cuda-python generates from the headers."""
    text = re.search(rf"{name}\((.*?)\)", (ORIGINAL[name].__doc__ or "").splitlines()[0])
    assert text is not None, name
    return [part for part in text[1].split(",") if part.strip()]


ORIGINAL = {name: getattr(cudart, name) for name in dir(cudart) if name.startswith("cuda")}


def names(log) -> list[str]:
    return [entry[0] for entry in log]


def test_the_gpu_is_current_inside_and_the_former_one_afterwards(calls):
    memory = CudaMemory(0)
    with memory.active():
        assert calls[-1] == ("cudaSetDevice", 0)
    assert calls[-1] == ("cudaSetDevice", 3)


def test_a_gpu_that_is_not_there_is_refused(calls):
    with pytest.raises(EnvironmentFault, match="GPU 2 was asked for, and CUDA sees 1"):
        CudaMemory(2)


def test_copies_go_from_source_to_target_in_their_stream(calls):
    memory = CudaMemory(0)
    stream, block = memory.stream(), memory.device(64)
    host = type("Host", (), {"address": 77})()
    memory.upload(block, host, 48, stream)
    kind = cudart.cudaMemcpyKind
    assert calls[-1] == ("cudaMemcpyAsync", block.address, 77, 48, kind.cudaMemcpyHostToDevice, stream.value)
    memory.download(host, block, 48, stream)
    assert calls[-1] == ("cudaMemcpyAsync", 77, block.address, 48, kind.cudaMemcpyDeviceToHost, stream.value)
    memory.copy(1, 2, 16, stream)
    assert calls[-1] == ("cudaMemcpyAsync", 1, 2, 16, kind.cudaMemcpyDeviceToDevice, stream.value)


def test_recording_ends_also_after_an_error(calls):
    memory = CudaMemory(0)
    stream = memory.stream()

    def broken():
        raise RuntimeError("enqueue failed")

    with pytest.raises(RuntimeError, match="enqueue failed"):
        memory.capture(stream, broken)
    assert names(calls)[-2:] == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]
    graph = memory.capture(stream, lambda: None)
    graph()
    assert names(calls)[-3:] == ["cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphLaunch"]


def test_everything_made_is_given_back(calls):
    memory = CudaMemory(0)
    made = [memory.device(8), memory.stream(), memory.event(), memory.array((2, 2), __import__("numpy").dtype("f4"))]
    made.clear()
    assert {"cudaFree", "cudaStreamDestroy", "cudaEventDestroy"} <= set(names(calls))
    assert names(calls).count("cudaFree") == names(calls).count("cudaMalloc") == 2


def test_streams_do_not_wait_for_the_default_stream_but_for_the_caller_when_told(calls):
    memory = CudaMemory(0)
    stream = memory.stream()
    assert ("cudaStreamCreateWithFlags", cudart.cudaStreamNonBlocking) in calls
    memory.wait_for_caller(stream)
    record, wait = calls[-3:-1] if names(calls)[-1] == "cudaEventDestroy" else calls[-2:]
    assert (record[0], record[2]) == ("cudaEventRecord", 0)
    assert wait[:3] == ("cudaStreamWaitEvent", stream.value, record[1])


def test_an_error_is_a_sentence_with_the_runtimes_own_reason():
    def cudaMalloc(_size):
        return cudart.cudaError_t.cudaErrorMemoryAllocation, None

    with pytest.raises(EnvironmentFault, match="failed in cudaMalloc: out of memory; use a smaller --batch-size"):
        call(cudaMalloc, 10)


def test_a_stream_that_could_not_be_made_is_not_destroyed(monkeypatch):
    def cudaStreamCreateWithFlags(_flags):
        return cudart.cudaError_t.cudaErrorNoDevice, None

    monkeypatch.setattr(cudart, "cudaStreamCreateWithFlags", cudaStreamCreateWithFlags)
    with pytest.raises(EnvironmentFault, match="cudaStreamCreateWithFlags"):
        CudaStream()
