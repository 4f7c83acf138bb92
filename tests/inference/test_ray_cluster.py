from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from etnet.errors import EnvironmentFault, UsageError
from etnet.inference import ray_cluster
from etnet.inference.inputs import InputItem
from etnet.inference.pipeline import Work
from etnet.inference.ray_cluster import RayPipeline, Share, check_address, connected
from etnet.inference.ray_worker import ModelChoice, WorkerSetup
from etnet.inference.refinement import Refinement
from etnet.inference.result_files import OutputChoice
from etnet.inference.results import Failure


def share(*nodes: dict[str, float], device: str = "auto", threads: int | None = None) -> Share:
    return ray_cluster._share(nodes, device=device, threads=threads)


def worker_setup(tmp_path: Path) -> WorkerSetup:
    model = ModelChoice(Path("model"), "auto", "cpu", Refinement())
    return WorkerSetup(model, 1, tmp_path, OutputChoice(), Work(batch_size=2), tmp_path)


def test_an_actor_has_a_gpu_where_there_are_any():
    assert share({"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 1}, {"CPU": 64}) == Share(3, cpus=1, gpus=1)
    assert share({"CPU": 16, "GPU": 2}, device="cpu", threads=8) == Share(2, cpus=8)


def test_an_actor_lies_on_one_machine_and_has_four_processors_unless_told_otherwise():
    assert share({"CPU": 7}, {"CPU": 16}, {}) == Share(5, cpus=4)
    assert share({"CPU": 2}) == Share(1, cpus=2)
    assert share({"CPU": 2}, {"CPU": 3}, threads=1) == Share(5, cpus=1)


def test_a_cluster_without_a_place_for_an_actor_is_refused():
    with pytest.raises(EnvironmentFault, match="has 8 processors, the most is 4; give fewer --threads"):
        share({"CPU": 4}, threads=8)
    with pytest.raises(EnvironmentFault, match="no machine of the Ray cluster has a GPU"):
        share({"CPU": 4}, device="cuda")
    with pytest.raises(EnvironmentFault, match="the most is 0"):
        share()


@pytest.mark.parametrize(
    ("inputs", "batch_size", "expected"), [(100_000, 1, 16), (100_000, 8, 32), (9, 1, 2), (3, 8, 8)]
)
def test_tasks_are_small_and_hold_a_batch(inputs, batch_size, expected):
    assert Share(2, cpus=1).inputs_per_task(inputs, batch_size) == expected


@pytest.mark.parametrize("address", ["images", "ray://head:10001", ":6379", "head", "head:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="expected local, auto or HOST:PORT"):
        check_address(address, device="auto")


def test_the_number_of_a_gpu_is_left_to_ray():
    with pytest.raises(UsageError, match="use --device cuda"):
        check_address("auto", device="cuda:1")
    check_address("head:6379", device="cuda")


def join(address: str) -> None:
    with connected(address):
        pytest.fail("joined a cluster that is none")


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(EnvironmentFault, match=rf"--ray 127.0.0.1:{port}: no Ray cluster .*refused"):
        join(f"127.0.0.1:{port}")
    assert time.monotonic() - start < 30


def test_a_server_that_is_no_ray_head_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_cluster, "_SECONDS_TO_JOIN", 3.0)
    # Connections wait in the server's queue and are never answered.
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(EnvironmentFault, match="no answer of a Ray head in 3 s"),
    ):
        join("{}:{}".format(*server.getsockname()))


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'etnet\[ray\]'"):
        RayPipeline(worker_setup(tmp_path), address="local")


def pipeline_with_lines(tmp_path, monkeypatch, lines: list[dict[str, object]]) -> RayPipeline:
    pipeline = RayPipeline(worker_setup(tmp_path), address="local")
    monkeypatch.setattr(ray_cluster, "_nodes", lambda: [{"CPU": 2}])
    monkeypatch.setattr(pipeline, "_lines", lambda *_: iter(lines))
    return pipeline


def failed(name: str) -> dict[str, object]:
    return {"result": {"file": name, "reason": "broken"}}


def known(*names: str) -> dict[InputItem, None]:
    return {InputItem(name, Path(name), name): None for name in names}


def test_what_ray_did_twice_comes_out_once(tmp_path, monkeypatch):
    lines = [{"ran_on": "torch cpu"}, failed("a"), failed("b"), failed("a"), failed("stranger")]
    pipeline = pipeline_with_lines(tmp_path, monkeypatch, lines)
    assert [step.result for step in pipeline._steps(known("a", "b"))] == [
        Failure("a", "broken"),
        Failure("b", "broken"),
    ]
    assert pipeline.ran_on == "torch cpu"


def test_what_ray_lost_is_told_and_not_passed_over(tmp_path, monkeypatch):
    pipeline = pipeline_with_lines(tmp_path, monkeypatch, [failed("a")])
    with pytest.raises(EnvironmentFault, match=r"without results for 1 of 2 inputs, such as b; .*--continue"):
        list(pipeline._steps(known("a", "b")))


@pytest.mark.parametrize(("kind", "error"), [("UsageError", UsageError), ("SystemExit", EnvironmentFault)])
def test_a_fault_of_an_actor_stops_the_run_after_what_was_done(tmp_path, monkeypatch, kind, error):
    pipeline = pipeline_with_lines(tmp_path, monkeypatch, [failed("a"), {"fault": [kind, "no disk (on node7)"]}])
    steps = pipeline._steps(known("a", "b"))
    assert next(steps).result == Failure("a", "broken")
    with pytest.raises(error, match=r"^no disk \(on node7\)$"):
        next(steps)


def test_no_cluster_is_started_for_no_input(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "connected", lambda _: pytest.fail("started"))
    assert list(RayPipeline(worker_setup(tmp_path), address="local").run([])) == []
