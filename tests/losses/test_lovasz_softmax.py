from __future__ import annotations

import pytest
import torch

from etnet.errors import UsageError
from etnet.losses import LovaszSoftmax
from etnet.ops import lovasz


def test_options_reach_the_operator():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (3, 5, 6), generator=generator)
    for options in (
        {},
        {"classes": "all"},
        {"classes": [1, 3]},
        {"per_image": True},
        {"ignore_index": 2},
        {"classes": (0,), "per_image": True, "ignore_index": 3, "method": "reference"},
    ):
        assert torch.equal(LovaszSoftmax(**options)(logits, target), lovasz.lovasz_softmax(logits, target, **options))


def test_uniform_scores_of_one_class_cost_one_half():
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = LovaszSoftmax()(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert loss.item() == 0.5
    loss.backward()
    assert (logits.grad[:, 0] < 0).all()


def test_descent_reaches_the_target():
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (2, 6, 6), generator=generator)
    logits = torch.randn(2, 3, 6, 6, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    criterion = LovaszSoftmax()
    for _ in range(200):
        optimizer.zero_grad()
        loss = criterion(logits, target)
        loss.backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), target)
    assert loss.item() < 0.01


def test_wrong_classes_are_refused_at_construction():
    with pytest.raises(UsageError, match="expected 'present', 'all' or a list"):
        LovaszSoftmax(classes="every")


def test_has_no_parameters_and_shows_its_options():
    criterion = LovaszSoftmax(classes=[1, 2], ignore_index=255)
    assert not criterion.state_dict()
    assert repr(criterion) == "LovaszSoftmax(classes=(1, 2), per_image=False, ignore_index=255)"
