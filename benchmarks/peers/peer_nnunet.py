"""nnU-Net v2 beside etnet: the masks of a folder of photographs.

    benchmarks/peers/.venvs/nnunet/bin/python benchmarks/peers/peer_nnunet.py --data DRIVE/ --json FILE

ET-Net of the recipe `drive` and the 2D network that nnU-Net plans for the same photographs, whose numbers of features
are chosen so that both cost about the same multiplications per pixel. Both have random weights. Compared are

- the whole commands, `nnUNetv2_predict_from_modelfolder` and `etnet infer`, as users start them, without mirrored
  copies (`--disable_tta`; etnet has none by default). etnet's command also writes measurements, a journal and a report.
- the same within one process that holds the loaded network: nnU-Net's sequential prediction, which starts no processes,
  and etnet's folder run.

nnU-Net divides an image into tiles of the planned patch with steps of half a tile; etnet takes these photographs whole.
On CUDA nnU-Net runs in mixed precision by default and etnet in float32.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import side_by_side
import torch
from measurement import Comparison, take_turns
from nnunet_model import PlannedModel, cost_of, plan_model

from etnet.config.schema import Recipe
from etnet.data.dataset import SegmentationDataset
from etnet.data.io import read_mask_values, read_size, write_png
from etnet.inference.folder import predict_folder
from etnet.inference.inputs import find_inputs
from etnet.inference.pipeline import Work
from etnet.inference.refinement import Refinement, refine
from etnet.inference.two_stage import open_predictor
from etnet.manifest import encode_header
from etnet.models import build_model
from etnet.training.checkpoint import save_weights

PACKAGE = "nnU-Net"
VERSION = version("nnunetv2")
COUNTED = 512
"""Height and width for which multiplications are counted."""

THREADS = "nnUNet_def_n_proc"
"""Variable that limits nnU-Net's threads; its default of 8 is for larger machines."""

SMOKE = ("model.encoder=resnet18",)


@dataclass(frozen=True)
class SharedInputs:
    """What both sides are given.

    Attributes:
        images: Folder of the photographs, under the names that nnU-Net wants.
        weights: ET-Net's.
        model: nnU-Net's.
        scratch: Folder for results.
        device: `cpu` or `cuda`.
        threads: Of each side.
        networks: Both of them in words.
    """

    images: Path
    weights: Path
    model: PlannedModel
    scratch: Path
    device: str
    threads: int
    networks: str

    @property
    def count(self) -> int:
        """How many photographs there are."""
        return len(list(self.images.iterdir()))

    def our_masks(self) -> Path:
        """Where ours end."""
        return self.scratch / "etnet" / "masks"

    def their_masks(self) -> Path:
        """Where theirs end."""
        return self.scratch / "nnunet"


def prepare(dataset: SegmentationDataset, recipe: Recipe, scratch: Path, options: argparse.Namespace) -> SharedInputs:
    """Photographs, weights and the model folder."""
    images = scratch / "images"
    images.mkdir()
    count = 2 if options.smoke else (64 if options.device == "cuda" else 8)
    for index in range(count):
        write_png(images / f"{index:03d}_0000.png", dataset.load(index % len(dataset)).image)
    torch.manual_seed(0)
    network = build_model(recipe.model, len(recipe.data.class_names))
    weights = scratch / "etnet.safetensors"
    save_weights(weights, network.state_dict(), encode_header(recipe=recipe, iteration=1, epoch=1, data_root="data"))
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    gmacs = cost_of(network, COUNTED)
    model = plan_model(dataset, scratch, gmacs=gmacs, size=COUNTED)
    encoder = recipe.model.encoder.split(".")[0]
    described = (
        f"ET-Net {encoder} {parameters:.1f} M parameters, {gmacs:.1f} GMAC; {model.network} {model.parameters:.1f} M, "
        f"{model.gmacs:.1f} GMAC for {COUNTED}x{COUNTED}"
    )
    return SharedInputs(images, weights, model, scratch, options.device, options.threads, described)


def run_command(command: list[str], threads: int) -> None:
    """Run a program of this environment to its end; its output is shown where it fails."""
    environment = {**os.environ, THREADS: str(threads)}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def our_command(work: SharedInputs) -> None:
    """`etnet infer`."""
    command = [sys.executable, "-m", "etnet", "infer", str(work.images), "--model", str(work.weights)]
    command += ["--output", str(work.our_masks().parent), "--overwrite", "--device", work.device]
    run_command([*command, "--threads", str(work.threads)], work.threads)


def their_command(work: SharedInputs) -> None:
    """`nnUNetv2_predict_from_modelfolder`, with its own number of processes."""
    program = str(Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder")
    command = [program, "-i", str(work.images), "-o", str(work.their_masks()), "-m", str(work.model.folder)]
    run_command([*command, "-f", "0", "-device", work.device, "--disable_tta", "--disable_progress_bar"], work.threads)


def our_run(work: SharedInputs) -> Callable[[], None]:
    """The folder run of `etnet infer` with a network that is loaded."""
    network = open_predictor(work.weights, backend="torch", device=work.device, threads=work.threads)
    predictor, inputs = refine(network, Refinement()), find_inputs(work.images)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
            if predict_folder(predictor, inputs, Path(folder), work=Work()).failed:
                raise AssertionError("images failed")

    return run


def their_run(work: SharedInputs) -> Callable[[], None]:
    """nnU-Net's prediction without other processes, with a network that is loaded."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with redirect_stdout(StringIO()):
        predictor = nnUNetPredictor(
            tile_step_size=0.5, use_mirroring=False, device=torch.device(work.device), allow_tqdm=False
        )
        predictor.initialize_from_trained_model_folder(str(work.model.folder), use_folds=(0,))

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=work.scratch) as folder, redirect_stdout(StringIO()):
            predictor.predict_from_files_sequential(str(work.images), folder)

    return run


def checked(work: SharedInputs) -> str:
    """That both wrote a mask of every photograph in its size, in words."""
    for folder in (work.our_masks(), work.their_masks()):
        masks = sorted(folder.glob("*.png"))
        if len(masks) != work.count:
            raise AssertionError(f"{folder.name} holds {len(masks)} masks of {work.count} photographs")
        for mask, image in zip(masks, sorted(work.images.iterdir()), strict=True):
            labels = read_mask_values(mask)
            if labels.shape != read_size(image) or not np.isin(labels, (0, 1)).all():
                raise AssertionError(f"{mask} is no mask of {image.name}")
    patch = "x".join(map(str, work.model.patch))
    return f"{work.count} masks each of other networks: {work.networks}; tiles of {patch} there, whole images here"


def rows(work: SharedInputs, *, rounds: int) -> list[Comparison]:
    """Images per second of the commands, and of loaded networks."""
    pairs: dict[str, dict[str, Callable[[], object]]] = {
        "the whole command": {"etnet": lambda: our_command(work), PACKAGE: lambda: their_command(work)},
        "with the network loaded": {"etnet": our_run(work), PACKAGE: their_run(work)},
    }
    names = {
        "the whole command": ("etnet infer", "nnUNetv2_predict_from_modelfolder --disable_tta"),
        "with the network loaded": ("predict_folder", "nnUNetPredictor, sequential"),
    }
    height, width = read_size(next(work.images.iterdir()))
    compared = []
    for kind, tasks in pairs.items():
        # A command begins anew every time; there is nothing in it to warm up.
        times = take_turns(tasks, rounds=rounds, warm_up=0 if kind == "the whole command" else 1)
        rates = {name: [1000 * work.count / value for value in own] for name, own in times.items()}
        own, other = names[kind]
        compared.append(
            Comparison.of_rounds(
                (own, rates["etnet"]),
                (other, rates[PACKAGE]),
                version=VERSION,
                better="higher",
                subject=f"masks of a folder, {kind}",
                case=f"{work.count} photographs of {height}x{width}, {side_by_side.processor_or_gpu(work.device)}",
                unit="images/s",
                result=checked(work),
            )
        )
    return compared


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures."""
    options = side_by_side.arguments(__doc__, rounds=2, words=words)
    side_by_side.use_threads(options.threads)
    os.environ[THREADS] = str(options.threads)  # nnU-Net reads it when it is imported
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        dataset, recipe = side_by_side.open_pictures(options, scratch / "data", *(SMOKE if options.smoke else ()))
        work = prepare(dataset, recipe, scratch, options)
        compared = rows(work, rounds=options.rounds)
    side_by_side.conclude(
        options,
        compared,
        peer="nnunet",
        what="masks of a folder of photographs beside nnU-Net v2 with a 2D network of about the same cost",
        packages=("nnunetv2", "dynamic-network-architectures", "timm"),
        figures={"networks": work.networks, "patch": work.model.patch},
    )


if __name__ == "__main__":
    main()
