"""The same contract for every provider of memory, on a real GPU; run with -m gpu."""

from __future__ import annotations

import numpy as np
import pytest

from etnet.errors import EnvironmentFault
from etnet.trt.driver import ask_driver
from etnet.trt.memory import open_memory

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["torch", "cuda", "pycuda"])
def memory(request):
    if not ask_driver().gpus:
        pytest.skip(ask_driver().problem)
    try:
        provider = open_memory(request.param)
    except EnvironmentFault as error:
        pytest.skip(str(error))
    with provider.active():
        yield provider
    provider.close()


def test_bytes_go_up_are_copied_and_come_back(memory):
    size = 1 << 20
    there, back = memory.pinned(size), memory.pinned(size)
    first, second = memory.device(size), memory.device(size)
    there.bytes[:] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    up, compute, down = memory.stream(), memory.stream(), memory.stream()
    uploaded, copied, downloaded = memory.event(), memory.event(), memory.event()
    memory.upload(first, there, size, up)
    uploaded.record(up)
    memory.wait(compute, uploaded)
    memory.copy(second.address, first.address, size, compute)
    copied.record(compute)
    memory.wait(down, copied)
    memory.download(back, second, size, down)
    downloaded.record(down)
    downloaded.synchronize()
    np.testing.assert_array_equal(back.bytes, there.bytes)


def test_a_recorded_copy_runs_again_with_new_bytes(memory):
    size = 4096
    host, back = memory.pinned(size), memory.pinned(size)
    first, second = memory.device(size), memory.device(size)
    stream = memory.stream()
    memory.copy(second.address, first.address, size, stream)
    stream.synchronize()
    try:
        launch = memory.capture(stream, lambda: memory.copy(second.address, first.address, size, stream))
    except NotImplementedError as error:
        pytest.skip(str(error))
    for value in (1, 2, 3):
        host.bytes[:] = value
        memory.upload(first, host, size, stream)
        launch()
        memory.download(back, second, size, stream)
        stream.synchronize()
        assert set(back.bytes.tolist()) == {value}


def test_new_arrays_have_the_shape_and_type_that_were_asked_for(memory):
    for dtype in (np.uint8, np.float32):
        array = memory.array((2, 3, 16, 32), np.dtype(dtype))
        view = memory.view(array)
        assert (view.shape, view.dtype) == ((2, 3, 16, 32), np.dtype(dtype))
        assert view.address > 0


def test_handles_are_numbers_that_tensorrt_takes(memory):
    assert memory.stream().handle > 0
    assert memory.device(16).address % 16 == 0
