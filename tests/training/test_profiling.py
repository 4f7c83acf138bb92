from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etnet.training.profiling import OTHER, Phases, Profile, profile_training
from etnet.training.stages import STAGES
from etnet.training.tracking import SilentObserver
from helpers.runs import tiny_recipe, write_disc_folder


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    root = tmp_path_factory.mktemp("profile")
    (root / "found").mkdir()
    return profile_training(
        tiny_recipe("training.accumulate=2", "training.batch_size=4", "training.ema_decay=0.9"),
        data_root=write_disc_folder(root / "discs"),
        folder=root / "found",
        device=torch.device("cpu"),
        observer=SilentObserver(),
        phases=Phases(warmup=2, measured=4, traced=2),
    )


def made_up(**milliseconds: float) -> Profile:
    stages = {name: milliseconds.get(name.replace(" ", "_"), 1.0) for name in (*STAGES, OTHER)}
    return Profile(Path("found"), 10, 25, 3, sum(stages.values()), stages, 100.0, "cuda", "bfloat16", 0)


def test_the_stages_and_the_rest_make_up_the_step(profiled: Profile) -> None:
    assert (profiled.warmup, profiled.measured, profiled.traced) == (2, 4, 2)
    assert list(profiled.stages) == [*STAGES, OTHER]
    assert all(profiled.stages[name] > 0 for name in STAGES)
    assert sum(profiled.stages.values()) == pytest.approx(profiled.step)
    assert profiled.images_per_second == pytest.approx(4000 / profiled.step)


def test_a_profile_leaves_a_trace_with_every_stage_and_no_weights(profiled: Profile) -> None:
    assert {path.name for path in profiled.folder.rglob("*")} == {"trace.json.gz", "profile.json"}
    events = json.loads(gzip.decompress((profiled.folder / "trace.json.gz").read_bytes()))["traceEvents"]
    counts = {name: sum(event.get("name") == name for event in events) for name in STAGES}
    # Two steps of two parts; the optimizer comes before and after the check for finite numbers, and with the average.
    assert counts["forward"] == counts["loss"] == counts["backward"] == 4
    assert counts["data wait"] == 2
    stored = json.loads((profiled.folder / "profile.json").read_text())
    assert stored["steps"] == {"warmup": 2, "measured": 4, "traced": 2}
    assert stored["milliseconds_per_step"] == {"step": profiled.step, **profiled.stages}


def test_a_phase_that_is_out_of_time_ends_after_three_steps(tmp_path: Path) -> None:
    found = profile_training(
        tiny_recipe(),
        data_root=write_disc_folder(tmp_path / "discs"),
        folder=tmp_path,
        device=torch.device("cpu"),
        observer=SilentObserver(),
        phases=Phases(traced=1, seconds=0.0),
    )
    assert (found.warmup, found.measured, found.traced) == (3, 3, 1)


@pytest.mark.parametrize("stage", [*STAGES, OTHER])
def test_the_longest_stage_is_named_with_what_to_do(stage: str) -> None:
    profile = made_up(**{stage.replace(" ", "_"): 100.0})
    if stage != "data wait":
        profile = replace(profile, stages={**profile.stages, "data wait": 0.0})
    assert profile.bottleneck == stage
    assert profile.advice().startswith(f"{stage.capitalize()} takes 9")
    assert profile.advice().endswith(".")


def test_waiting_for_data_comes_before_longer_work() -> None:
    assert made_up(forward=40.0, backward=40.0, data_wait=15.0).bottleneck == "data wait"
    assert made_up(forward=40.0, backward=50.0, data_wait=2.0).bottleneck == "backward"


def test_more_workers_are_proposed_only_where_there_are_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    waiting = made_up(data_wait=100.0)
    assert "raise data.workers (now 0; there are 8 cores)" in waiting.advice()
    assert "all 8 cores read already" in replace(waiting, workers=7).advice()


def test_the_advice_for_a_network_fits_device_and_number_format() -> None:
    slow = replace(made_up(backward=200.0, data_wait=0.0), precision="float32")
    assert "training.precision=bfloat16" in slow.advice()
    assert "bfloat16" not in replace(slow, precision="bfloat16").advice()
    assert "train on a GPU" in replace(slow, device="cpu").advice()
