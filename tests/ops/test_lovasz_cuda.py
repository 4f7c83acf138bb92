from __future__ import annotations

import pytest
import torch

from etnet.ops import reference
from etnet.ops.lovasz import lovasz_softmax
from helpers.lovasz_cases import CASES, check_types_and_layouts


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("method", ["auto", "sort", "histogram"])
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_value_and_gradient_are_those_of_the_cpu(self, case, method):
        options = case.options | {"method": method, "bins": 64}
        ours = case.inputs[0].clone().requires_grad_()
        theirs = case.inputs[0].cuda().requires_grad_()
        expected = lovasz_softmax(ours, case.inputs[1], **options)
        loss = lovasz_softmax(theirs, case.inputs[1].cuda(), **options)
        assert loss.item() == pytest.approx(expected.item(), abs=2e-6 if method != "histogram" else 2e-5)
        expected.backward()
        loss.backward()
        if case.smooth:
            torch.testing.assert_close(theirs.grad.cpu(), ours.grad, atol=2e-6, rtol=1e-5)

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("logits_type", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("target_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_every_type_and_layout_gives_the_same(self, method, channels_last, logits_type, target_type, classes):
        check_types_and_layouts("cuda", method, channels_last, logits_type, target_type, classes)

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("classes", [2, 5])
    def test_same_bits_on_every_run_on_a_side_stream_and_in_a_graph(self, method, classes):
        generator = torch.Generator().manual_seed(12)
        logits = torch.randn(4, classes, 129, 257, generator=generator).cuda().requires_grad_()
        target = torch.randint(0, classes, (4, 129, 257), generator=generator).cuda()

        def run():
            loss = lovasz_softmax(logits, target, method=method)
            return loss, torch.autograd.grad(loss, logits)[0]

        results = [run(), run()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results.append(run())
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results.append(run())
        graph.replay()
        torch.cuda.synchronize()
        for loss, gradient in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(gradient, results[0][1])

    @pytest.mark.parametrize("method", ["sort", "histogram"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_invalid_target_or_nan_breaks_loss_and_gradient(self, method, classes):
        logits = torch.zeros(2, classes, 33, 35, device="cuda")
        target = torch.zeros(2, 33, 35, dtype=torch.int64, device="cuda")
        for place, value in ((target, 77), (logits[:, 0], torch.nan), (logits[:, 1], torch.inf)):
            before = place[1, 4, 5].item()
            place[1, 4, 5] = value
            leaf = logits.clone().requires_grad_()
            loss = lovasz_softmax(leaf, target, method=method)
            loss.backward()
            assert loss.isnan()
            assert leaf.grad.isnan().all()
            place[1, 4, 5] = before

    @pytest.mark.parametrize("bins", [2, 255, 6144, 6145, 65536])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_histogram_stays_within_its_bound(self, bins, classes):
        generator = torch.Generator().manual_seed(bins)
        logits = 2 * torch.randn(2, classes, 65, 129, generator=generator)
        target = torch.randint(0, classes, (2, 65, 129), generator=generator)
        exact = reference.lovasz_softmax(logits.double(), target).item()
        loss = lovasz_softmax(logits.cuda(), target.cuda(), method="histogram", bins=bins).item()
        assert abs(loss - exact) <= 1 / (2 * (bins - 1)) + 2e-6

    def test_many_classes_and_many_listed_ones(self):
        generator = torch.Generator().manual_seed(13)
        logits = torch.randn(1, 300, 17, 19, generator=generator)
        target = torch.randint(0, 300, (1, 17, 19), generator=generator)
        for classes in ("present", "all", tuple(range(290, 100, -1))):
            for method in ("sort", "histogram"):
                options = {"classes": classes, "method": method}
                expected = lovasz_softmax(logits, target, **options).item()
                assert lovasz_softmax(logits.cuda(), target.cuda(), **options).item() == pytest.approx(
                    expected, abs=2e-5
                )
