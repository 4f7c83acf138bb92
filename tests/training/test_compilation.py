from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from etnet.training.tracking import SilentObserver
from helpers.runs import StopAfter, tiny_recipe, tiny_run, write_disc_folder

LAST = "weights/last.safetensors"
SETTINGS = ("training.ema_decay=0.9", "training.epochs=1")
COMPILED = (*SETTINGS, "training.compile=true")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_disc_folder(tmp_path_factory.mktemp("compilation") / "discs")


@pytest.fixture(scope="module")
def plain(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What a run without torch.compile leaves."""
    run = tmp_path_factory.mktemp("plain") / "run"
    tiny_run(tiny_recipe(*SETTINGS), discs, run)
    return load_file(run / LAST)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[object]]:
    """Chooses what torch.compile makes of a graph; the graphs that it makes something of are in the list."""

    def choose(make: object) -> list[object]:
        torch.compiler.reset()
        graphs: list[object] = []

        def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
            graphs.append(graph)
            return make(graph, inputs)

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
        return graphs

    return choose


class Sentences(SilentObserver):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_message(self, text: str) -> None:
        """Note it."""
        self.told.append(text)


def as_written(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
    return graph.forward


def refused(*_: object) -> object:
    raise NotImplementedError("no compiler here")


def differing(run: Path, expected: dict[str, torch.Tensor]) -> list[str]:
    found = load_file(run / LAST)
    assert set(found) == set(expected)
    return [name for name in expected if not torch.equal(found[name], expected[name])]


def test_a_compiled_run_has_one_graph_goes_on_after_a_stop_and_keeps_all_names(
    backend: Callable[[object], list[object]], plain: dict[str, torch.Tensor], discs: Path, tmp_path: Path
) -> None:
    graphs, recipe = backend(as_written), tiny_recipe(*COMPILED)
    tiny_run(recipe, discs, tmp_path / "run", observer=StopAfter(2))
    assert len(graphs) == 1, "a new value of alpha asks for no graph of its own"
    tiny_run(recipe, discs, tmp_path / "run", resume=True)
    compiled = load_file(tmp_path / "run" / LAST)
    assert set(compiled) == set(plain)
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_where_compiling_fails_the_run_says_so_once_and_is_the_plain_one(
    backend: Callable[[object], list[object]], plain: dict[str, torch.Tensor], discs: Path, tmp_path: Path
) -> None:
    graphs, observer = backend(refused), Sentences()
    tiny_run(tiny_recipe(*COMPILED), discs, tmp_path / "run", observer=observer)
    assert len(graphs) == 1
    (sentence,) = [text for text in observer.told if text.startswith("torch.compile failed")]
    assert sentence.startswith("torch.compile failed (")
    assert "no compiler here" in sentence
    assert differing(tmp_path / "run", plain) == []


def test_a_backward_pass_that_cannot_be_compiled_leaves_no_trace(
    backend: Callable[[object], list[object]], plain: dict[str, torch.Tensor], discs: Path, tmp_path: Path
) -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._dynamo.exc import TorchDynamoException
    from torch._functorch.aot_autograd import make_boxed_func

    def boxed(function: Callable[[list[torch.Tensor]], object]) -> Callable[[list[torch.Tensor]], object]:
        function._boxed_call = True
        return function

    def refuse(_: list[torch.Tensor]) -> object:
        raise TorchDynamoException("no backward pass here")

    def fails_backward(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        forward_only = aot_autograd(
            fw_compiler=lambda inner, _: make_boxed_func(inner.forward), bw_compiler=lambda *_: boxed(refuse)
        )
        return forward_only(graph, inputs)

    backend(fails_backward)
    observer = Sentences()
    tiny_run(tiny_recipe(*COMPILED), discs, tmp_path / "run", observer=observer)
    assert [text for text in observer.told if "no backward pass here" in text]
    assert differing(tmp_path / "run", plain) == []


@pytest.mark.long
def test_the_compiler_of_torch_trains_the_same_network(discs: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    observer = Sentences()
    for settings, run in ((SETTINGS, "plain"), (COMPILED, "compiled")):
        tiny_run(tiny_recipe(*settings), discs, tmp_path / run, observer=observer)
    assert not [text for text in observer.told if text.startswith("torch.compile failed")]
    # Compiled sums have another order, which Adam's first steps enlarge: weights differ more than what they compute.
    plain, compiled = (losses(tmp_path / run) for run in ("plain", "compiled"))
    assert compiled == pytest.approx(plain, abs=2e-3)
    assert compiled != plain


def losses(run: Path) -> list[float]:
    with (run / "metrics.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line)["loss"] for line in stream]
