from __future__ import annotations

import pytest
import torch

from etnet import native
from etnet.ops import _launch

OPTIONS = {"mode": "present", "listed": [], "per_image": False, "ignore_index": None}


def test_scratch_memory_is_aligned_and_of_the_asked_size():
    for size in (0, 1, 63, 4096):
        scratch = _launch._scratch(size)
        assert scratch.numel() == size
        assert size == 0 or scratch.data_ptr() % 64 == 0


def test_gradient_is_left_out_when_it_is_not_needed():
    logits, target = torch.randn(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.uint8)
    loss, gradient = _launch.lovasz_softmax(logits, target, **OPTIONS, need_gradient=False)
    again, full = _launch.lovasz_softmax(logits, target, **OPTIONS, need_gradient=True)
    assert gradient.shape == (0,)
    assert full.shape == logits.shape
    assert loss.item() == again.item()


class TestNativeArguments:
    def call(self, **changes):
        arguments = {
            "logits": 64, "target": 64, "target_bytes": 8, "images": 1, "channels": 2, "height": 1, "width": 1,
            "mode": "present", "listed": [], "per_image": False, "ignore_index": None, "gradient": 0, "workspace": 64,
            "workspace_size": 1 << 20, "threads": 1,
        }  # fmt: skip
        return native.require().lovasz_softmax(**(arguments | changes))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"logits": 0}, "logits is a null pointer"),
            ({"logits": 66}, "logits: address 66 is not a multiple of 4"),
            ({"workspace": 72}, "workspace: address 72 is not a multiple of 64"),
            ({"target_bytes": 2}, "target_bytes is 2; expected 1 or 8"),
            ({"target": 0}, "exactly one of the two targets"),
            ({"channels": 0}, "have 0 classes"),
            ({"height": -1}, "must not be negative"),
            ({"threads": 0}, "threads is 0"),
            ({"workspace_size": 8}, "the workspace has 8 bytes"),
            ({"mode": "some"}, "mode is 'some'"),
            ({"mode": "listed", "listed": [2]}, r"class 2 is outside 0\.\.1"),
            ({"mode": "listed", "listed": [1, 1]}, "class 1 is listed twice"),
            ({"images": 1 << 40, "height": 1 << 40}, r"more than 2\^33 logits"),
        ],
    )
    def test_wrong_argument_is_refused_before_memory_is_touched(self, changes, message):
        with pytest.raises(ValueError, match=message):
            self.call(**changes)

    def test_workspace_grows_with_workers_and_segments(self):
        sizes = {"images": 4, "channels": 3, "height": 16, "width": 16}
        bytes_of = native.require().lovasz_softmax_workspace_bytes
        pooled = bytes_of(**sizes, per_image=False, threads=1)
        assert pooled >= 4 * 3 * 256 * 4 + 2 * 8 * 4 * 256
        assert bytes_of(**sizes, per_image=True, threads=1) < pooled
        assert bytes_of(**sizes, per_image=False, threads=3) > pooled
        assert bytes_of(**sizes, per_image=False, threads=99) == bytes_of(**sizes, per_image=False, threads=3)
