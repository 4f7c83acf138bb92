from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from etnet import native
from etnet.ops import _launch

OPTIONS = _launch.LovaszOptions(
    mode="present", listed=(), per_image=False, ignore_index=None, method="sort", bins=4096, need_gradient=True
)


def test_scratch_memory_is_aligned_and_of_the_asked_size():
    for size in (0, 1, 63, 4096):
        scratch = _launch._scratch(size, torch.device("cpu"))
        assert scratch.numel() == size
        assert size == 0 or scratch.data_ptr() % 256 == 0


@pytest.mark.parametrize("method", ["sort", "histogram"])
def test_state_is_left_out_when_it_is_not_needed(method):
    logits, target = torch.randn(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.uint8)
    loss, state = _launch.lovasz_softmax(logits, target, replace(OPTIONS, method=method, need_gradient=False))
    again, full = _launch.lovasz_softmax(logits, target, replace(OPTIONS, method=method))
    assert state.shape == (0,)
    assert full.shape == (logits.shape if method == "sort" else (1, 1, 2, 4096))
    assert loss.item() == again.item()


def test_weights_have_a_table_for_each_class_but_one_for_two():
    options = replace(OPTIONS, method="histogram", bins=16)
    assert _launch.state_like(torch.empty(3, 5, 2, 2), options).shape == (1, 5, 2, 16)
    assert _launch.state_like(torch.empty(3, 2, 2, 2), replace(options, per_image=True)).shape == (3, 1, 2, 16)


def test_gradient_lies_as_the_logits_do():
    logits = torch.randn(2, 3, 4, 5)
    assert _launch.gradient_like(logits).is_contiguous()
    last = logits.contiguous(memory_format=torch.channels_last)
    assert _launch.gradient_like(last).stride() == last.stride()
    assert _launch.gradient_like(logits.transpose(2, 3)).is_contiguous()
    assert _launch.gradient_like(logits.half()).dtype == torch.float32


class TestNativeArguments:
    sizes: ClassVar = {
        "images": 1, "channels": 2, "height": 1, "width": 1, "per_image": False, "channels_last": False,
        "with_gradient": True, "method": "sort", "bins": 4096, "threads": 1,
    }  # fmt: skip
    buffers: ClassVar = {
        "logits": 64, "logits_type": "float32", "target": 64, "target_type": "int64", "ignore_index": None,
        "gradient": 64, "weights": 64, "scale": 64, "workspace": 64, "workspace_bytes": 1 << 20,
    }  # fmt: skip

    def make_sizes(self, **changes):
        return native.require().LovaszSoftmaxSizes(**(self.sizes | changes))

    def bytes_of(self, **changes):
        return native.require().lovasz_softmax_workspace_bytes(self.make_sizes(**changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"logits": 0}, "logits is a null pointer"),
            ({"logits": 66}, "logits: address 66 is not a multiple of 4"),
            ({"workspace": 72}, "workspace: address 72 is not a multiple of 64"),
            ({"logits_type": "float64"}, "logits_type is 'float64'; expected float32"),
            ({"target_type": "int16"}, "target_type is 'int16'; expected uint8, int32 or int64"),
            ({"target": 0}, "target is a null pointer"),
            ({"target": 68}, "target: address 68 is not a multiple of 8"),
            ({"gradient": 0}, "gradient is a null pointer"),
            ({"gradient": 68}, "gradient: address 68 is not a multiple of 8"),
            ({"workspace_bytes": 8}, "the workspace has 8 bytes"),
        ],
    )
    def test_wrong_buffer_is_refused_before_memory_is_touched(self, changes, message):
        kernels = native.require()
        buffers = kernels.LovaszSoftmaxBuffers(**(self.buffers | changes))
        with pytest.raises(ValueError, match=message):
            kernels.lovasz_softmax(self.make_sizes(), buffers, mode="present", listed=[])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mode": "some"}, "mode is 'some'"),
            ({"mode": "listed", "listed": [2]}, r"class 2 is outside 0\.\.1"),
            ({"mode": "listed", "listed": [1, 1]}, "class 1 is listed twice"),
        ],
    )
    def test_wrong_classes_are_refused(self, changes, message):
        kernels = native.require()
        buffers = kernels.LovaszSoftmaxBuffers(**self.buffers)
        with pytest.raises(ValueError, match=message):
            kernels.lovasz_softmax(self.make_sizes(), buffers, **({"mode": "present", "listed": []} | changes))

    @pytest.mark.parametrize(
        ("method", "changes", "message"),
        [
            ("sort", {}, "only the histogram's gradient is looked up"),
            ("histogram", {"weights": 0}, "weights is a null pointer"),
            ("histogram", {"scale": 0}, "scale is a null pointer"),
            ("histogram", {"scale": 66}, "scale: address 66 is not a multiple of 4"),
            ("histogram", {"gradient": 0}, "gradient is a null pointer"),
        ],
    )
    def test_wrong_buffer_of_the_look_up_is_refused(self, method, changes, message):
        kernels = native.require()
        with pytest.raises(ValueError, match=message):
            kernels.lovasz_softmax_look_up(
                self.make_sizes(method=method), kernels.LovaszSoftmaxBuffers(**(self.buffers | changes))
            )

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channels": 0}, "have 0 classes"),
            ({"height": -1}, "must not be negative"),
            ({"threads": 0}, "threads is 0"),
            ({"images": 1 << 40, "height": 1 << 40}, r"more than 2\^33 logits"),
            ({"channels": 1, "images": 1 << 16, "height": 1 << 16}, "4294967296 pixels are ranked together"),
            ({"channels": 1 << 32}, "classes are more than"),
            ({"method": "histogram", "bins": 1}, r"bins is 1; expected 2\.\.65536"),
            ({"method": "fast"}, "method is 'fast'"),
        ],
    )
    def test_sizes_outside_their_limits_are_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            self.bytes_of(**changes)

    def test_sorting_memory_is_that_of_the_segments_in_work(self):
        sizes = {"images": 4, "channels": 3, "height": 256, "width": 256}
        probabilities, words = 4 * 3 * 65536 * 4, 2 * 8 * 65536
        pooled = self.bytes_of(**sizes)
        assert pooled >= probabilities + 4 * words
        assert pooled < probabilities + 4 * words + 20_000
        assert self.bytes_of(**sizes, per_image=True) < probabilities + words + 20_000
        assert self.bytes_of(**sizes, per_image=True, threads=3) >= probabilities + 3 * words
        assert self.bytes_of(**sizes, per_image=True, threads=9) < probabilities + 4 * words + 80_000

    def test_two_classes_and_histograms_keep_no_probabilities(self):
        sizes = {"images": 4, "height": 256, "width": 256}
        assert self.bytes_of(**sizes, channels=2) < 8 * 4 * 65536 + 20_000
        assert self.bytes_of(**sizes, channels=2, with_gradient=False) < 2 * 8 * 4 * 65536 + 20_000
        assert self.bytes_of(**sizes, channels=2, method="histogram") < 100_000
        assert self.bytes_of(**sizes, channels=3, method="histogram") < 300_000
