from __future__ import annotations

import time
import timeit
from contextlib import nullcontext

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from etnet.training.stages import STAGES, recording, stage

CPU = torch.device("cpu")


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_times_are_added_up_by_stage_and_step() -> None:
    with recording(CPU) as clock:
        for _ in range(2):
            with clock.step():
                for _ in range(2):
                    with stage("forward"):
                        busy(0.01)
                with stage("loss"):
                    busy(0.005)
                busy(0.005)
    rows = clock.milliseconds()
    assert len(rows) == 2
    for row in rows:
        assert row.keys() == {"step", "forward", "loss"}
        assert row["forward"] >= 20
        assert row["loss"] >= 5
        assert row["step"] >= row["forward"] + row["loss"] + 5


def test_without_a_recording_a_stage_is_nothing_and_costs_nothing() -> None:
    assert isinstance(stage("forward"), nullcontext)
    with recording(CPU):
        assert not isinstance(stage("forward"), nullcontext)
    assert isinstance(stage("forward"), nullcontext)

    def enter() -> None:
        with stage("forward"):
            pass

    # Six stages of half a microsecond; the shortest step takes milliseconds. The bound is for machines under load.
    assert min(timeit.repeat(enter, number=10_000, repeat=5)) / 10_000 < 10e-6


def test_stages_are_ranges_of_the_profiler() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as profiler, recording(CPU) as clock, clock.step():
        for name in STAGES:
            with stage(name):
                torch.ones(2).add_(1)
    assert {event.key for event in profiler.key_averages()} >= set(STAGES)


def test_a_stage_that_fails_ends() -> None:
    with recording(CPU) as clock, clock.step(), pytest.raises(ValueError, match="spoilt"), stage("loss"):
        raise ValueError("spoilt")
    assert clock.milliseconds()[0].keys() == {"step", "loss"}


def test_compiled_code_holds_no_stage() -> None:
    def double(values: torch.Tensor) -> torch.Tensor:
        with stage("forward"):
            return values * 2

    compiled = torch.compile(double, backend="eager", fullgraph=True)
    with recording(CPU) as clock, clock.step():
        assert compiled(torch.ones(2)).tolist() == [2, 2]
    assert clock.milliseconds()[0].keys() == {"step"}


@pytest.mark.gpu
def test_on_a_gpu_a_stage_lasts_as_long_as_the_device_works_on_it() -> None:
    device = torch.device("cuda")
    matrix = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    with recording(device) as clock, clock.step():
        with stage("forward"):
            for _ in range(20):
                matrix @ matrix
        with stage("loss"):
            matrix.sum()
    (row,) = clock.milliseconds()
    assert row["forward"] > 5 * row["loss"]
    assert row["step"] >= row["forward"] + row["loss"]
