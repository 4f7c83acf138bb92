"""`etnet inspect`: what a model file is, where it comes from and whether it can run here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etnet.cli.console import messages, output, print_rows

if TYPE_CHECKING:
    from etnet.inference.inspection import BundleInspection, Inspection
    from etnet.sidecar import Sidecar

TITLES = {"weights": "Trained weights", "onnx": "ONNX file", "engine": "TensorRT engine"}


@click.command("inspect", short_help="Show what a model file is and whether it runs here.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON to stdout.")
def command(file: Path, as_json: bool) -> None:
    """Show what FILE (a run directory, weights, an ONNX file, an engine or a bundle) holds, and if it can run here.

    \b
    etnet inspect runs/train/drive/model-fp16.engine

    Reads the file and its sidecar FILE.json; the model is neither loaded nor run, and nothing is downloaded. Loading an
    engine is running code, so run only engines that you built or that come from someone you trust with your machine.
    """
    from rich.text import Text

    from etnet.inference.bundle import is_bundle
    from etnet.inference.inspection import inspect_bundle, inspect_model
    from etnet.output import json_text

    if is_bundle(file):
        bundle = inspect_bundle(file)
        if as_json:
            click.echo(json_text(bundle.to_dict()))
        else:
            _show_bundle(bundle)
        return
    found = inspect_model(file)
    if as_json:
        click.echo(json_text(found.to_dict()))
        return
    print_rows(_rows(found))
    output().print(Text.assemble(("Next: ", "bold"), _next(found)), soft_wrap=True)
    if found.kind == "engine":
        messages().print(
            "Loading an engine is running code: run only engines that you built or whose maker you trust. Nothing was "
            "loaded.",
            soft_wrap=True,
        )


def _show_bundle(bundle: BundleInspection) -> None:
    from rich.text import Text

    rule = bundle.description.bundle.rule
    print_rows(
        [
            ("Bundle", f"{bundle.description.path} (a localizer and a segmenter)"),
            ("Runs here", "yes" if bundle.runs_here else "no, see below"),
            ("Centre of", f"{rule.structure}, at least {rule.min_area:.2%} of the image"),
        ]
    )
    for stage in (bundle.localizer, bundle.segmenter):
        output().print()
        print_rows(_rows(stage))
    output().print(Text.assemble(("Next: ", "bold"), _next_of_bundle(bundle)), soft_wrap=True)


def _next_of_bundle(bundle: BundleInspection) -> str:
    unable = [stage for stage in (bundle.localizer, bundle.segmenter) if not stage.runs_here]
    command = f"etnet infer YOUR_IMAGES --model {shlex.quote(str(bundle.description.path))}"
    return unable[0].remedy if unable else command


def _rows(found: Inspection) -> list[tuple[str, str]]:
    description, contract = found.description, found.description.contract
    roi = contract.roi
    rows = [
        (TITLES[found.kind], str(description.path)),
        ("Runs here", f"yes, on {found.where}" if found.runs_here else f"no: {found.problem}"),
        ("Classes", ", ".join(contract.class_names)),
        ("Normalisation", f"mean {_numbers(contract.mean)}, std {_numbers(contract.std)} of 0..255 RGB"),
        ("Resized to", "" if roi else "{}x{}".format(*contract.image_size) if contract.image_size else "not at all"),
        ("Region", f"{roi.side:g} of the width around a centre, seen at {roi.size}x{roi.size}" if roi else ""),
        ("Precision", description.precision),
    ]
    if description.sidecar is not None:
        rows += _deployed_rows(description.sidecar)
    source = description.source
    rows.append(("Trained", f"recipe {source.recipe}, epoch {source.epoch}, etnet {source.etnet_version}"))
    rows += [(f"SHA-256 of {link.kind}", f"{link.sha256[:16]}...  {link.name} ({link.found})") for link in found.chain]
    return rows


def _deployed_rows(sidecar: Sidecar) -> list[tuple[str, str]]:
    from etnet.cli.build_engine import input_rows

    size, batch = input_rows(sidecar.input)
    # An ONNX file takes any number of images; its range is that of an engine built from it.
    rows = [size, batch if sidecar.engine else ("Engine batch", batch[1]), ("Outputs", ", ".join(sidecar.outputs))]
    if sidecar.engine is not None:
        engine = sidecar.engine
        shares = ", ".join(f"{share:.0%} {name}" for name, share in engine.layer_precisions.items())
        rows += [
            ("Layers", shares or "not told by the library"),
            ("Built with", f"{engine.library} {engine.library_version}"),
            ("Built for", engine.gpu or ", ".join(engine.targets)),
            ("Compatible with", ", ".join(engine.compatibility)),
        ]
    if sidecar.verification is None:
        rows.append(("Compared", "no"))
    else:
        told = sidecar.verification
        differing = f"{100 * told['differing_labels']:.4f} % of the labels differ"
        rows.append(("Compared", f"with {told['reference']} on {told['images']} images: {differing}"))
    return rows


def _next(found: Inspection) -> str:
    if not found.remedy and found.description.contract.roi is not None:
        return f"etnet bundle LOCALIZER {shlex.quote(str(found.description.path))} --output DIR"
    return found.remedy or f"etnet infer YOUR_IMAGES --model {shlex.quote(str(found.description.path))}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
