"""What a step that is not finite leaves for inspection: its batch, the weights that met it, and a picture."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from etnet.config.schema import Recipe
from etnet.data.io import write_png
from etnet.data.preview import batch_preview
from etnet.errors import CheckFailed, EtnetError
from etnet.manifest import TRAINING_PREFIX, encode_header
from etnet.output import disk_faults
from etnet.training.checkpoint import save_weights
from etnet.training.run_folder import NONFINITE
from etnet.training.step import NotFinite


def keep_for_inspection(
    error: NotFinite, network: nn.Module, *, run: Path, recipe: Recipe, data_root: Path, rank: int = 0
) -> CheckFailed:
    """Save what the step saw in `nonfinite/` of the run folder: a safetensors file and a PNG.

    The file is one of weights like `last`, with those before the step, so that the step can be done again: it holds
    also `training/batch/images` [N, 3, H, W], `training/batch/masks` and `training/batch/edges` [N, H, W], all uint8.
    The running statistics of batch normalization have taken the batch in, on a GPU also the few that came after it; a
    step does not read them.

    Args:
        error: What the step raised.
        network: The trained network, whose weights the step did not change.
        run: Run folder.
        recipe: Names the classes, for the picture.
        data_root: Folder of the data set.
        rank: Which of the processes that train together this is; each had its own part of the batch.

    Returns:
        The error to end the run with, which names the file. A disk that refuses the file does not hide what happened.
    """
    batch, iteration, folder = error.batch, error.iteration, run / NONFINITE
    name = f"iteration-{iteration + 1}" + (f"-process-{rank}" if rank else "")
    header = encode_header(
        recipe=recipe,
        iteration=iteration,
        epoch=0,
        data_root=str(data_root),
        training_state={
            "batch_ids": list(batch.ids),
            "losses": {key: repr(v) for key, v in vars(error.result).items()},
        },
    )
    tensors = {f"{TRAINING_PREFIX}batch/{key}": getattr(batch, key) for key in ("images", "masks", "edges")}
    try:
        with disk_faults(folder):
            folder.mkdir(exist_ok=True)
        save_weights(folder / f"{name}.safetensors", {**network.state_dict(), **tensors}, header)
        write_png(folder / f"{name}.png", batch_preview(batch, recipe, title=f"{run.name}: iteration {iteration + 1}"))
    except EtnetError as failure:
        return CheckFailed(f"{error}; its batch could not be saved ({failure})")
    return CheckFailed(f"{error}; the batch and the weights that met it are in {folder / name}.safetensors and .png")
