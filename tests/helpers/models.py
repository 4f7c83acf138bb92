"""One tester for every segmentation network: subclass `ModelTester`, give it a network, get the tests of the family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from etnet.errors import UsageError
from etnet.losses import EdgeSupervisedLoss
from etnet.models import ETNetOutput, SegmentationNetwork

SIZES = [(4, 4), (6, 10), (1, 2)]
"""Heights and widths, in multiples of what the network takes."""


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Images as the network sees them after normalisation."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tensors_of(output: ETNetOutput) -> list[Tensor]:
    """The logits that there are."""
    edges = [] if output.edge_logits is None else [output.edge_logits]
    return [output.seg_logits, *edges, *output.side_logits]


def open_residual_branches(network: nn.Module) -> None:
    """Residual branches that start closed (scale 0) would hide their inner layers from the first gradient."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.fill_(1.0)


def remove_dropout(network: nn.Module) -> None:
    """Make training deterministic: compiled code draws its random numbers in another order."""
    for layer in network.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0


class ModelTester:
    """Tests that hold for any network [N, 3, H, W] -> ETNetOutput.

    A subclass overrides `build`, which returns a new network in training mode with the same weights every time, and
    says what it takes in `size_multiple` and what it gives in `num_classes`, `has_edges` and `side_outputs`.
    """

    num_classes = 3
    has_edges = True
    side_outputs = 0
    size_multiple = 16

    def build(self) -> SegmentationNetwork:
        raise NotImplementedError

    @pytest.mark.parametrize("size", SIZES)
    def test_logits_have_the_size_of_the_images(self, size):
        network = self.build().eval()
        size = tuple(self.size_multiple * side for side in size)
        with torch.no_grad():
            output = network(random_images(2, 3, *size))
        assert output.seg_logits.shape == (2, self.num_classes, *size)
        assert (output.edge_logits is not None) == self.has_edges
        if self.has_edges:
            assert output.edge_logits.shape == (2, 2, *size)
        assert [side.shape for side in output.side_logits] == [output.seg_logits.shape] * self.side_outputs
        assert all(logits.dtype == torch.float32 and logits.isfinite().all() for logits in tensors_of(output))

    def test_it_says_what_it_is(self):
        network = self.build()
        assert (network.num_classes, network.has_edges) == (self.num_classes, self.has_edges)
        assert network.size_multiple == self.size_multiple

    def test_a_gradient_reaches_every_parameter(self):
        network = self.build()
        open_residual_branches(network)
        output = network(random_images(2, 3, 64, 96))
        sum(logits.square().mean() for logits in tensors_of(output)).backward()
        untouched = [
            name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().max() > 0
        ]
        assert untouched == []

    def test_evaluation_is_deterministic_and_each_image_stands_alone(self):
        network = self.build().eval()
        images = random_images(3, 3, 64, 64)
        with torch.no_grad():
            together, again, alone = network(images), network(images), network(images[1:2])
        for first, second, single in zip(*map(tensors_of, (together, again, alone)), strict=True):
            assert torch.equal(first, second)
            torch.testing.assert_close(first[1:2], single, rtol=1e-4, atol=1e-5)

    def test_it_learns_squares(self):
        masks = torch.zeros(4, 64, 64, dtype=torch.long)
        for index in range(4):
            masks[index, 8 + 4 * index : 40 + 4 * index, 16:48] = 1
        images = 0.1 * random_images(4, 3, 64, 64) + masks[:, None] - 0.5
        network = self.build()
        remove_dropout(network)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
        for _ in range(25):
            loss = EdgeSupervisedLoss()(network(images), masks, torch.zeros_like(masks)).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        labels = network(images).seg_logits.argmax(dim=1)
        # A quarter of the pixels is foreground; the map of the coarsest network has a stride of 16.
        assert (labels == masks).float().mean() > 0.93

    def test_the_same_seed_gives_the_same_weights(self):
        first, second = self.build().state_dict(), self.build().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_channels_last_changes_nothing(self):
        network = self.build().eval()
        images = random_images(2, 3, 64, 64)
        with torch.no_grad():
            expected = network(images)
            network = network.to(memory_format=torch.channels_last)
            output = network(images.to(memory_format=torch.channels_last))
        for got, want in zip(tensors_of(output), tensors_of(expected), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    def test_bfloat16_autocast_stays_near_float32(self):
        network = self.build().eval()
        images = random_images(2, 3, 64, 64)
        with torch.no_grad():
            expected = network(images)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(images)
        for got, want in zip(tensors_of(output), tensors_of(expected), strict=True):
            assert (got.float() - want).abs().mean() < 0.1 * want.abs().mean()

    def test_bfloat16_autocast_trains(self):
        network = self.build()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(random_images(2, 3, 64, 64))
        sum(logits.float().square().mean() for logits in tensors_of(output)).backward()
        assert all(value.grad.dtype == torch.float32 for value in network.parameters())
        assert all(value.grad.isfinite().all() for value in network.parameters())

    @pytest.mark.parametrize("size", [(65, 64), (64, 8), (0, 64)])
    def test_a_size_that_does_not_fit_names_the_size_to_pad_to(self, size):
        step = self.size_multiple
        padded = "x".join(str(max(step, -(-side // step) * step)) for side in size)
        with pytest.raises(UsageError, match=padded):
            self.build()(torch.zeros(1, 3, *size))

    @pytest.mark.parametrize(
        "images", [torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64).byte()]
    )
    def test_a_batch_of_another_kind_is_refused(self, images):
        with pytest.raises(UsageError, match=r"\[N, 3, H, W\]"):
            self.build()(images)

    def test_export_gives_standard_operators_and_the_same_result(self):
        network = self.build().eval()
        images = random_images(2, 3, 64, 96)
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
        calls = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
        assert {name for name in calls if not name.startswith("aten.")} - {"<built-in function getitem>"} == set()
        other = random_images(3, 3, 64, 96, seed=1)
        with torch.no_grad():
            pairs = zip(tensors_of(exported.module()(other)), tensors_of(network(other)), strict=True)
            for got, want in pairs:
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    def test_the_compiler_takes_it_as_one_graph(self):
        network = self.build().eval()
        images = random_images(1, 3, 64, 64)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        with torch.no_grad():
            pairs = zip(tensors_of(compiled(images)), tensors_of(network(images)), strict=True)
            for got, want in pairs:
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    @pytest.mark.long
    def test_compiled_training_has_the_same_loss_as_eager_training(self):
        images = random_images(2, 3, 64, 64)
        losses = []
        for compiled in (False, True):
            network = self.build()
            remove_dropout(network)
            step = torch.compile(network) if compiled else network
            loss = sum(logits.square().mean() for logits in tensors_of(step(images)))
            loss.backward()
            losses.append(loss.detach())
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-5)
