"""Which commands each part consists of, on a processor and on a GPU, in full and as a smoke test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from suite.state import PRODUCT, SCRIPTS, TESTS
from suite.steps import BENCHMARKS, Settings, Step, script

FORMATS_ON_A_GPU = (
    *("torch-nchw", "torch", "torch-tf32", "torch-fp16", "torch-fp16-graph", "torch-compile"),
    *("torch-fp16-compile", "torch-tensorrt", "onnxruntime", "tensorrt-fp32", "tensorrt-fp16"),
)
FORMATS_OF_THE_SMOKE_TEST = "torch-nchw,torch,torch-tf32,torch-fp16-graph,torch-tensorrt,onnxruntime"

TINY = (
    *("model.encoder=test_resnet", "model.encoder_weights=none", "model.decoder_channels=16"),
    *("model.edge_channels=8", "data.workers=0", "training.precision=float32"),
    *("data.crop_size=32", "training.batch_size=2"),
)

PEERS = ("smp", "monai", "data", "nnunet")
PEER_SECONDS = 120.0


def steps(settings: Settings) -> list[Step]:
    """Every step of the parts that are asked for, in the order in which they run."""
    found = [step for part, make in _PARTS.items() if part in settings.parts for step in make(settings)]
    if "build" not in settings.parts and settings.site.is_dir():
        # Every command imports what was built here: it has to be built again where the sources are newer.
        found[:0] = _build(settings)
    reading = ("infer", "train", "accuracy") if settings.smoke else ("infer", "train")
    first = next((at for at, step in enumerate(found) if step.part in reading), None)
    if first is not None:
        found.insert(first, _inputs(settings, found[first].part))
    return found


def drive(settings: Settings) -> Path:
    """Folder of DRIVE, or of drawn images in its layout where there is none."""
    given = settings.data / "DRIVE" if settings.data is not None else None
    return given if given is not None and given.is_dir() else settings.inputs / "generated"


def _inputs(settings: Settings, part: str) -> Step:
    words = ["--out", settings.inputs, "--network", settings.network]
    if drive(settings).parent == settings.inputs:
        words += ["--images", "--size", 96 if settings.smoke else 584]
    else:
        words += ["--drive", drive(settings)]
    words += ["--copies", 320] if settings.cuda and not settings.smoke else []
    words += [word for setting in (*TINY, "training.epochs=1") for word in ("--set", setting)] if settings.smoke else []
    seconds = 15 if settings.smoke else 45 if settings.cuda else 75
    return Step("inputs", part, script("suite/inputs.py", *words), seconds, result=False)


def _build(settings: Settings) -> list[Step]:
    words = ["--out", settings.out, "--device", settings.device]
    words += ["--packages", settings.packages] if settings.packages is not None else []
    seconds = 150 if settings.cuda else 60
    return [Step("build", "build", script("suite/build.py", *words, *_json(settings, "build")), seconds, needs=PRODUCT)]


def _tests(settings: Settings) -> list[Step]:
    seconds = 60 if settings.smoke else 240
    words = ["--out", settings.out, "--device", settings.device, *(["--smoke"] if settings.smoke else [])]
    command = script("suite/gpu_tests.py", *words, *_json(settings, "tests"))
    return [Step("tests", "tests", command, seconds, needs=(*PRODUCT, *SCRIPTS, *TESTS))]


def _ops(settings: Settings) -> list[Step]:
    device = ["--device", settings.device]
    roofline, block = list(device), list(device)
    ops = [*device, "--without-weighted-block"]
    if settings.smoke:
        roofline += ["--mebibytes", 8, "--side", 128, "--rounds", 2]
        ops += ["--shape", 1, 2, 32, 32, "--rounds", 2, "--names", "eager", "sort", "--scores", "random"]
        block += ["--rounds", 1, "--without-compiled"]
    elif settings.cuda:
        ops += ["--rounds", 21]
        block += ["--rounds", 11]
    else:
        ops += ["--rounds", 5]
        block += ["--rounds", 31, "--without-compiled"]
    # torch.compile of every map takes most of the time on a GPU, the loss in plain torch on a processor.
    full = (15.0, 90.0, 200.0) if settings.cuda else (20.0, 200.0, 60.0)
    seconds = dict(zip(("roofline", "ops", "weighted_block"), (15.0,) * 3 if settings.smoke else full, strict=True))
    words = {"roofline": ("bench_roofline.py", roofline), "ops": ("bench_ops.py", ops)}
    words["weighted_block"] = ("bench_weighted_block.py", block)
    if not settings.cuda and not settings.smoke:
        words["ndops"], seconds["ndops"] = ("bench_ndops.py", []), 40.0
    return [
        Step(name, "ops", script(file, *options, *_json(settings, name)), seconds[name])
        for name, (file, options) in words.items()
    ]


def _infer(settings: Settings) -> list[Step]:
    device = ["--device", settings.device]
    network = [*device, "--model", settings.network, "--data", drive(settings)]
    folder = [*device, "--model", settings.network]
    images = (
        settings.inputs / "photographs" if settings.cuda and not settings.smoke else drive(settings) / "test/images"
    )
    folder += ["--input", images]
    if settings.smoke:
        network += ["--size", "64x64", "--runs", 2, "--formats", FORMATS_OF_THE_SMOKE_TEST]
        folder += ["--images", 2, "--rounds", 1]
    elif settings.cuda:
        network += ["--batch", "1,8", "--runs", 50, "--formats", ",".join(FORMATS_ON_A_GPU)]
        folder += ["--batch-size", 8, "--jobs", os.cpu_count() or 1, "--rounds", 3]
    else:
        network += ["--runs", 10, "--threads", 2]
        folder += ["--images", 10, "--rounds", 5, "--threads", 2]
    seconds = (40.0, 15.0) if settings.smoke else (240.0, 40.0) if settings.cuda else (180.0, 60.0)
    return [
        Step("inference", "infer", script("bench_inference.py", *network, *_json(settings, "inference")), seconds[0]),
        Step("infer", "infer", script("bench_infer.py", *folder, *_json(settings, "infer")), seconds[1]),
    ]


def _train(settings: Settings) -> list[Step]:
    folder = ["--data", drive(settings)]
    data, step = list(folder), [*folder, "--device", settings.device]
    if settings.smoke:
        tiny = [word for setting in TINY for word in ("--set", setting)]
        data += ["--rounds", 1, "--batches", 1, *tiny]
        step += ["--rounds", 1, "--steps", 1, *tiny]
    elif settings.cuda:
        step += ["--workers", max(1, min(8, (os.cpu_count() or 1) // 2)), "--rounds", 5, "--steps", 20]
    else:
        data += ["--rounds", 5]
        step += ["--threads", 2, "--set", "training.batch_size=4", "--rounds", 5, "--steps", 2]
    seconds = 15.0 if settings.smoke else 90.0 if settings.cuda else 120.0
    steps = [
        Step("data", "train", script("bench_data.py", *data, *_json(settings, "data")), seconds),
        Step("train_step", "train", script("bench_train_step.py", *step, *_json(settings, "train_step")), seconds),
    ]
    if not settings.cuda and not settings.smoke:
        # What someone without a GPU trains.
        small = [*folder, "--device", "cpu", "--threads", 2, "--recipe", "drive_small", "--rounds", 7, "--steps", 3]
        command = script("bench_train_step.py", *small, *_json(settings, "train_step_small"))
        steps.append(Step("train_step_small", "train", command, 60.0))
    return steps


def _accuracy(settings: Settings) -> list[Step]:
    words = ["--out", settings.out / "accuracy", "--device", settings.device]
    words += ["--data", settings.data] if settings.data is not None else []
    words += ["--encoder-weights", settings.encoder_weights] if settings.encoder_weights is not None else []
    if settings.smoke:
        words += ["--drive", drive(settings), *(word for setting in TINY for word in ("--set", setting))]
        words += ["--set", "training.epochs=2", "--set", "data.validation_fraction=0"]
    command = script("suite/accuracy.py", *words, *_json(settings, "accuracy"))
    missing = None if settings.smoke or settings.data is not None else "there is no --data to train on"
    return [Step("accuracy", "accuracy", command, 60 if settings.smoke else 300, left_out=missing, goes_on=True)]


def _peers(settings: Settings) -> list[Step]:
    found = []
    for peer in PEERS:
        name, python = f"peers_{peer}", BENCHMARKS / "peers" / ".venvs" / peer / "bin" / "python"
        script_of = f"peers/peer_{peer}.py"
        missing = None
        if not (BENCHMARKS / script_of).is_file():
            missing = f"there is no benchmarks/{script_of}"
        elif not python.is_file():
            missing = f"there is no environment of it; benchmarks/peers/setup.sh {peer} makes one"
        words = ["--device", settings.device, *_json(settings, name), *(["--smoke"] if settings.smoke else [])]
        words += ["--data", drive(settings)] if drive(settings).name == "DRIVE" else []
        command = script(script_of, *words, python=python)
        found.append(Step(name, "peers", command, 30 if settings.smoke else PEER_SECONDS, left_out=missing))
    return found


def _json(settings: Settings, name: str) -> tuple[object, ...]:
    return ("--json", settings.out / f"{name}.json")


_PARTS: dict[str, Callable[[Settings], list[Step]]] = {
    "build": _build,
    "tests": _tests,
    "ops": _ops,
    "infer": _infer,
    "train": _train,
    "accuracy": _accuracy,
    "peers": _peers,
}
