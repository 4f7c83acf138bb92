"""The benchmarks of operators, formats and folders: who is compared with whom, and that both compute the same."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
import torch

from etnet.export.benchmark import Row
from etnet.inference.measure import Latency
from etnet.models import build_model
from etnet.models.blocks import WeightedBlock
from helpers.benchmarks import load_benchmark
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

ops = load_benchmark("bench_ops")
block = load_benchmark("bench_weighted_block")
ndops = load_benchmark("bench_ndops")
formats = load_benchmark("bench_inference")
folder = load_benchmark("bench_infer")
speed = load_benchmark("reporting.speed")
results = load_benchmark("reporting.results")


def run(module, monkeypatch, *words) -> None:
    """A script as its command line starts it, with the number of threads that it found."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, words)])
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)


def test_the_losses_are_compared_in_time_and_memory_and_agree(tmp_path, monkeypatch, capsys):
    path = tmp_path / "ops.json"
    shape = ("--shape", 1, 2, 128, 128)  # tensors beyond what fits into pages that are there already
    names = ("--names", "eager", "sort", "--scores", "random", "--rounds", 1, "--threads", 1)
    run(ops, monkeypatch, *shape, *names, "--without-weighted-block", "--json", path)
    result = json.loads(path.read_text("utf-8"))
    assert (result["benchmark"], result["device"], result["targets"]) == ("ops", "cpu", [])
    assert {row["subject"]: row["unit"] for row in result["comparisons"]} == {
        "Lovasz-Softmax, loss and gradient": "ms",
        "Lovasz-Softmax, peak memory": "MiB",
    }
    for row in result["comparisons"]:
        assert row["theirs"]["version"] == torch.__version__.split("+")[0]
        distance = row["result"].split()[0]
        assert distance == "equal" or float(distance) < 1e-5
    assert "etnet, exact (sort)" in capsys.readouterr().out


def test_the_targets_of_memory_and_copies_are_those_of_the_named_shape():
    options = ops.argparse.Namespace(shape=ops.TARGET_SHAPE, device="cuda")
    results = {
        "eager": {"extra_mib": 300.0},
        "sort": {"extra_mib": 30.0},
        "histogram": {"extra_mib": 60.0, "times_of_copy": 1.5},
    }
    assert [(target.value, target.met) for target in ops.aims(options, "random", results)] == [
        (0.1, True),
        (0.2, False),
        (1.5, True),
    ]
    options.shape = [1, 2, 8, 8]
    assert ops.aims(options, "random", results) == []


def test_every_weighted_block_is_compared_and_computes_the_same():
    rows, comparisons = block.measure("cpu", rounds=1, with_compiled=False, sides=(4,))
    assert len(rows) == len(comparisons) == 16
    assert {row.theirs.name for row in comparisons} == {"plain formula, eager"}
    for row, described in zip(comparisons, rows, strict=True):
        distance = row.result.split()[0]
        assert distance == "equal" or float(distance) < (1e-5 if described["dtype"] == "float32" else 2e-2)


def test_calls_on_a_gpu_are_counted_between_two_looks_at_the_clock(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("wait"))
    times = block.milliseconds({"one": lambda: calls.append("call")}, "cuda", rounds=2)
    assert calls == ([*["call"] * block.CALLS, "wait"]) * 4
    assert len(times["one"]) == 2


def test_the_network_with_plain_blocks_keeps_its_weights_and_its_output():
    network = build_model(tiny_recipe().model, 2).eval()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, state = network(image), {name: value.clone() for name, value in network.state_dict().items()}
        plain = block.with_plain_blocks(network)
        after = plain(image)
    assert {type(module) for module in plain.modules() if isinstance(module, WeightedBlock)} == {block.PlainBlock}
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())
    torch.testing.assert_close(after.seg_logits, before.seg_logits)


def test_an_operator_on_masks_is_compared_only_where_it_is_ours():
    ours, other = (lambda: np.arange(3)), (lambda: np.arange(4))
    medians, rows = ndops.measure("count", {"ours": ours, "numpy": ours, "scipy": other}, case="ten", rounds=1)
    assert list(medians) == ["ours", "numpy", "scipy"]
    assert [(row.theirs.name, row.result) for row in rows] == [("numpy", "equal"), ("scipy", "not equal")]
    assert ndops.measure("label", {"opencv": ours}, case="ten", rounds=1)[1] == []


def timed(name: str, *seconds: float, differing: float | None = None) -> Row:
    row = Row(name, ran_on=name, file_bytes=1, differing_labels=differing)
    row.latencies.append(Latency(1, np.array(seconds, np.float32), {}))
    return row


def test_every_format_that_ran_is_compared_with_plain_torch():
    rows = [timed("torch-nchw", 0.4, 0.2), Row("tensorrt-fp16", "no GPU"), timed("openvino", 0.1, 0.1, differing=3e-4)]
    (row,) = formats.compared(rows, "cpu", "a network")
    assert (row.theirs.name, row.ours.name) == (formats.PLAIN, "etnet, openvino")
    assert row.ratio == pytest.approx(3.0)
    assert (row.target, row.result) == (3.0, "3 of 10,000 labels differ")
    others = formats.compared([timed("torch", 0.2), timed("openvino", 0.1)], "cpu", "a network")
    assert [(row.theirs.name, row.target) for row in others] == [("torch", None)]
    assert formats.compared([Row("torch-nchw", "no memory")], "cpu", "a network") == []


def test_a_target_of_speed_is_that_of_single_images():
    rows = [timed("torch-nchw", 0.4), timed("openvino", 0.1)]
    for row in rows:
        row.latencies.insert(0, Latency(8, np.array([1.0], np.float32), {}))
    assert [(row.case, row.target) for row in formats.compared(rows, "cpu", "a network")] == [
        ("a network, batch 8", None),
        ("a network, batch 1", 3.0),
    ]


def test_the_overhead_of_a_folder_has_a_target_on_a_processor_only():
    assert [target.met for target in folder.aims({"device": "cpu", "overhead": 0.2})] == [False]
    assert folder.aims({"device": "cuda", "overhead": 0.2}) == []


def test_a_folder_is_measured_beside_its_network(tmp_path, monkeypatch, capsys):
    data = write_disc_folder(tmp_path / "data")
    model = tmp_path / "run"
    tiny_run(tiny_recipe("training.epochs=1"), data, model)
    path = tmp_path / "infer.json"
    words = ("--input", data / "images", "--images", 2, "--rounds", 1, "--device", "cpu", "--json", path)
    run(folder, monkeypatch, "--model", model, *words)
    result = json.loads(path.read_text("utf-8"))
    assert (result["benchmark"], result["device"], result["images"]) == ("infer", "cpu", 2)
    (target,) = result["targets"]
    assert (target["value"], target["at_least"]) == (result["overhead"], False)
    assert result["images_per_s"] > 0
    assert str(tmp_path) not in json.dumps(result)
    assert "folder run" in capsys.readouterr().out
    shown = speed.section(results.Result(result))
    assert shown.startswith("2 images of 48x48, torch cpu: the network alone ")
    assert "images/s, all of `etnet infer` " in shown


def test_formats_are_shown_with_time_and_memory_and_those_that_cannot_run_by_name():
    rows = [timed("torch-nchw", 0.4, 0.2), Row("tensorrt-fp16", "no GPU")]
    rows[0].peak_bytes = {"host": 2**20}
    figures = {"network": "a network", "size": [32, 48], "runs": 2, "rows": [row.to_dict() for row in rows]}
    shown = speed.inference(figures)
    line = "| torch-nchw | torch-nchw | 1 | 300 ms | 390 ms | 3.33 images/s | 1.00 MiB | 0.000000954 MiB |"
    assert line in re.sub(r" +", " ", shown)
    assert "Could not run there: tensorrt-fp16." in shown
    assert "a network, 32x48, 2 runs" in shown


@pytest.mark.parametrize("figures", [{"benchmark": "weighted_block"}, {"benchmark": "ops"}])
def test_the_share_of_a_copy_is_shown_where_it_was_measured(figures):
    key = "rows" if figures["benchmark"] == "weighted_block" else "weighted_block"
    row = {"shape": [1, 256, 4, 4], "dtype": "float16", "layout": "contiguous"}
    assert speed.bandwidth({**figures, key: [row]}) == ""
    assert "81 %" in speed.bandwidth({**figures, key: [row, {**row, "share_of_copy_bandwidth": 0.812}]})
