"""`etnet demo`: the three commands of every day on generated images, so that a newcomer sees results in two minutes."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from etnet.cli.console import closing_lines, note
from etnet.errors import UsageError
from etnet.output import create_output_folder

TRAINING_IMAGES, TEST_IMAGES, IMAGE_SIZE, SEED = 30, 6, 256, 0


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="New folder for all that the demo makes."
)
@click.option(
    "--epochs", type=click.IntRange(min=1), metavar="N", help="Train longer or shorter than the recipe `demo` says."
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to run.")
def command(output: Path | None, epochs: int | None, device: str) -> None:
    """Train, evaluate and predict on generated images in about two minutes.

    Generates fundus-like images with exact masks of vessels, optic disc and optic cup (nothing is downloaded), and runs
    etnet train, etnet evaluate and etnet infer on them, showing each command as you would type it.
    """
    from etnet.data.synthetic import write_fundus_dataset

    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: expected a new or empty output folder; name another with --output")
    folder = create_output_folder(output, parent=Path("runs"), name="demo")
    data, run, scores, predictions = (folder / name for name in ("data", "train", "evaluate", "infer"))
    note(f"Generating {TRAINING_IMAGES + TEST_IMAGES} fundus-like images into {data}")
    write_fundus_dataset(data, train=TRAINING_IMAGES, test=TEST_IMAGES, size=IMAGE_SIZE, seed=SEED)
    longer = ["--epochs", str(epochs)] if epochs is not None else []
    _run("train", "--recipe", "demo", "--data", data, "--output", run, "--device", device, *longer)
    _run("evaluate", run, "--data", data, "--split", "test", "--output", scores, "--device", device)
    test_images = data / "test" / "images"
    _run("infer", test_images, "--model", run, "--output", predictions, "--overlay", "--device", device)
    note("Pictures to look at:")
    for picture in (run / "training_samples.png", run / "results.png", scores / "overlays", predictions / "overlays"):
        note(f"  {picture}")
    closing_lines(folder, "etnet plan my_folder/   (with images/ and masks/)")


def _run(name: str, *arguments: str | Path) -> None:
    """Show a command as it would be typed, then run it in this process."""
    from etnet.cli.main import main

    words = [name, *(str(argument) for argument in arguments)]
    note(f"\n$ etnet {shlex.join(words)}")
    code = main.main(words, standalone_mode=False)
    if code:
        raise click.exceptions.Exit(code)
