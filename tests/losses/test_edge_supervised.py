from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from etnet.errors import UsageError
from etnet.losses import EdgeSupervisedLoss, LovaszSoftmax


class Output(NamedTuple):
    seg_logits: torch.Tensor
    edge_logits: torch.Tensor | None
    side_logits: tuple[torch.Tensor, ...] = ()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    output = Output(
        torch.randn(2, 3, 6, 7, generator=generator).requires_grad_(),
        torch.randn(2, 2, 6, 7, generator=generator).requires_grad_(),
    )
    masks = torch.randint(0, 3, (2, 6, 7), generator=generator)
    edges = torch.randint(0, 2, (2, 6, 7), generator=generator)
    return output, masks, edges


def test_total_weighs_regions_by_alpha_and_edges_by_the_rest(batch):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(0.3)(*batch)
    seg, edge = LovaszSoftmax()(output.seg_logits, masks), LovaszSoftmax()(output.edge_logits, edges)
    assert terms.seg.item() == seg.item()
    assert terms.edge.item() == edge.item()
    assert terms.total.item() == pytest.approx(0.3 * seg.item() + 0.7 * edge.item(), rel=1e-6)


def test_default_alpha_is_the_papers():
    assert EdgeSupervisedLoss().alpha == 0.3


def test_gradient_reaches_both_outputs(batch):
    EdgeSupervisedLoss()(*batch).total.backward()
    assert all(torch.count_nonzero(logits.grad) > 0 for logits in batch[0][:2])


@pytest.mark.parametrize(("alpha", "silent"), [(1.0, 1), (0.0, 0)])
def test_alpha_at_its_ends_trains_one_output_only(batch, alpha, silent):
    EdgeSupervisedLoss(alpha)(*batch).total.backward()
    assert torch.count_nonzero(batch[0][silent].grad) == 0
    assert torch.count_nonzero(batch[0][1 - silent].grad) > 0


def test_network_without_edges_is_trained_on_regions_alone(batch):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(0.3)(output._replace(edge_logits=None), masks, edges)
    assert terms.total.item() == terms.seg.item() == LovaszSoftmax()(output.seg_logits, masks).item()
    assert terms.edge.item() == 0.0


def test_region_classes_do_not_apply_to_edges(batch):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(classes=[2])(*batch)
    assert terms.seg.item() == LovaszSoftmax([2])(output.seg_logits, masks).item()
    assert terms.edge.item() == LovaszSoftmax()(output.edge_logits, edges).item()


def test_ignored_pixels_are_left_out_of_both_terms(batch):
    output, masks, edges = batch
    masks[0], edges[0] = 255, 255
    EdgeSupervisedLoss(ignore_index=255)(output, masks, edges).total.backward()
    for logits in output[:2]:
        assert torch.count_nonzero(logits.grad[0]) == 0
        assert torch.count_nonzero(logits.grad[1]) > 0


def test_per_image_averages_the_images(batch):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(per_image=True)(*batch)
    single = [
        EdgeSupervisedLoss()(Output(*(part[n : n + 1] for part in output[:2])), masks[n : n + 1], edges[n : n + 1])
        for n in range(2)
    ]
    assert terms.total.item() == pytest.approx(sum(one.total.item() for one in single) / 2, rel=1e-5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(UsageError, match=r"alpha is .*; expected a number in 0\.\.1"):
        EdgeSupervisedLoss(alpha)


@pytest.mark.parametrize("method", ["sort", "histogram", "reference"])
def test_both_terms_are_computed_by_the_method_asked_for(batch, method):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(method=method)(*batch)
    assert terms.seg.item() == LovaszSoftmax(method=method)(output.seg_logits, masks).item()
    assert terms.edge.item() == LovaszSoftmax(method=method)(output.edge_logits, edges).item()


def test_side_outputs_are_averaged_with_the_class_scores(batch):
    output, masks, edges = batch
    generator = torch.Generator().manual_seed(1)
    sides = tuple(torch.randn(2, 3, 6, 7, generator=generator).requires_grad_() for _ in range(2))
    terms = EdgeSupervisedLoss(0.3)(output._replace(side_logits=sides), masks, edges)
    losses = [LovaszSoftmax()(logits, masks).item() for logits in (output.seg_logits, *sides)]
    assert terms.seg.item() == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert terms.total.item() == pytest.approx(0.3 * terms.seg.item() + 0.7 * terms.edge.item(), rel=1e-6)
    terms.total.backward()
    assert all(torch.count_nonzero(logits.grad) > 0 for logits in (output.seg_logits, *sides))


def test_cross_entropy_is_mixed_into_both_terms(batch):
    output, masks, edges = batch
    terms = EdgeSupervisedLoss(0.3, cross_entropy=0.4)(*batch)
    for term, logits, target in ((terms.seg, output.seg_logits, masks), (terms.edge, output.edge_logits, edges)):
        entropy = torch.nn.functional.cross_entropy(logits, target)
        expected = 0.6 * LovaszSoftmax()(logits, target) + 0.4 * entropy
        assert term.item() == pytest.approx(expected.item(), rel=1e-6)
