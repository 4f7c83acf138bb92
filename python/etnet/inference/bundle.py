"""A bundle: one folder with the two networks of a localized segmentation and `bundle.json`, which joins them.

The first network finds the centre of a structure in the whole image, the second segments the square around it. Each is
a weights file or an ONNX file with its sidecar; `bundle.json` names all of them with their SHA-256, so that a file that
was replaced is refused. Reading needs neither torch nor any runtime. Leaves out engines, which run only where they were
built.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from etnet.errors import ModelFileError, UsageError
from etnet.inference.localize import LocalizationRule, structure_classes
from etnet.inference.model_file import ModelDescription
from etnet.manifest import BUNDLE_FILE
from etnet.output import disk_faults, write_text
from etnet.sidecar import file_sha256, sidecar_path
from etnet.types import Contract

FORMAT_VERSION = 1
STAGES = ("localizer", "segmenter")
SUFFIXES = (".safetensors", ".onnx")


@dataclass(frozen=True)
class StageFile:
    """One of the two models.

    Attributes:
        file: Its name in the bundle's folder.
        sha256: SHA-256 of the file, hexadecimal.
        bytes: Length of the file.
        recipe: Name of the recipe that trained it.
        epoch: Passes over the training images done.
        sidecar_sha256: SHA-256 of the sidecar beside it; None for weights, for an ONNX file that has none, and where an
            earlier version made the bundle.
    """

    file: str
    sha256: str
    bytes: int
    recipe: str
    epoch: int
    sidecar_sha256: str | None = None


@dataclass(frozen=True)
class Bundle:
    """The content of `bundle.json`.

    Attributes:
        localizer: Segments whole images, roughly.
        segmenter: Segments the region of interest.
        rule: How the centre is read from what the localizer says.
        versions: Versions of the packages that made the bundle.
        kind: What the bundle does.
        format: Version of this description.
    """

    localizer: StageFile
    segmenter: StageFile
    rule: LocalizationRule
    versions: dict[str, str | None] = field(default_factory=dict)
    kind: Literal["two_stage"] = "two_stage"
    format: int = FORMAT_VERSION


_ADAPTER = TypeAdapter(Bundle)


@dataclass(frozen=True)
class BundleDescription:
    """A bundle's own description, in the place of that of a model file.

    Attributes:
        path: The folder.
        bundle: Content of its `bundle.json`.
        localizer: The first model.
        segmenter: The second one.
    """

    path: Path
    bundle: Bundle
    localizer: ModelDescription
    segmenter: ModelDescription

    @property
    def contract(self) -> Contract:
        """Classes of the predictions."""
        return self.segmenter.contract

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `bundle.json`, which holds those of the models."""
        return file_sha256(self.path / BUNDLE_FILE)

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` says about the model."""
        return {
            **self.segmenter.to_dict(),
            "path": str(self.path),
            "sha256": self.sha256,
            "kind": "bundle",
            "localization": {"structure": self.bundle.rule.structure, "min_area": self.bundle.rule.min_area},
            "localizer": self.localizer.to_dict(),
            "segmenter": self.segmenter.to_dict(),
        }


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's folder."""
    return (path / BUNDLE_FILE).is_file()


def read_bundle(folder: Path) -> BundleDescription:
    """Read a bundle and check that its models are those that it was made of.

    Raises:
        ModelFileError: The folder is no bundle, a file is missing or has other bytes, or the two do not fit.
    """
    path = folder / BUNDLE_FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read ({error.strerror}); make a bundle with: etnet bundle LOCALIZER SEGMENTER "
            "--output DIR"
        ) from None
    bundle = _decode(text, origin=str(path))
    for stage in (bundle.localizer, bundle.segmenter):
        _require_same_bytes(folder, stage)
    localizer, segmenter = (ModelDescription.of_file(folder / getattr(bundle, stage).file) for stage in STAGES)
    check_stages(localizer, segmenter)
    try:
        structure_classes(localizer.contract, bundle.rule.structure)
    except UsageError as error:
        raise ModelFileError(f"{path}: {error}; make the bundle again") from None
    return BundleDescription(folder, bundle, localizer, segmenter)


def _decode(text: bytes, *, origin: str) -> Bundle:
    try:
        bundle = _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise ModelFileError(
            f"{origin}: the description of the bundle is damaged ({place}: {first['msg']}); make the bundle again"
        ) from None
    except UsageError as error:
        raise ModelFileError(f"{origin}: the description of the bundle is damaged ({error})") from None
    if bundle.format != FORMAT_VERSION:
        raise ModelFileError(
            f"{origin}: format {bundle.format}; this etnet reads format {FORMAT_VERSION}, make the bundle again"
        )
    for name in (bundle.localizer.file, bundle.segmenter.file):
        # A name with folders in it would point out of the bundle.
        if not name or Path(name).name != name or Path(name).suffix.lower() not in SUFFIXES:
            raise ModelFileError(
                f"{origin}: the description of the bundle is damaged ('{name}' is no name of a model file); make the "
                "bundle again"
            )
    return bundle


def _require_same_bytes(folder: Path, stage: StageFile) -> None:
    path = folder / stage.file
    _require_hash(path, stage.sha256, length=stage.bytes)
    if stage.sidecar_sha256 is not None:
        _require_hash(sidecar_path(path), stage.sidecar_sha256)


def _require_hash(path: Path, expected: str, *, length: int | None = None) -> None:
    try:
        found, digest = path.stat().st_size, file_sha256(path)
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read ({error.strerror}), though {BUNDLE_FILE} names it; copy the whole folder anew or "
            "make the bundle again"
        ) from None
    if digest != expected or length not in (None, found):
        wanted = "" if length is None else f"{length} bytes, "
        raise ModelFileError(
            f"{path}: its bytes are not those that {BUNDLE_FILE} describes ({found} bytes, SHA-256 {digest[:12]}...; "
            f"expected {wanted}{expected[:12]}...); copy the whole folder anew or make the bundle again"
        )


def check_stages(localizer: ModelDescription, segmenter: ModelDescription) -> None:
    """Refuse two models that cannot work one after the other.

    Raises:
        ModelFileError: The segmenter takes whole images, the localizer does not, or they read pixels differently.
    """
    finds, takes = localizer.contract, segmenter.contract
    if finds.roi is not None and takes.roi is None:
        raise ModelFileError(
            f"{localizer.path}: segments a region of interest and {segmenter.path} whole images, so the two are in the "
            "wrong order; the localizer comes first"
        )
    if finds.roi is not None:
        raise ModelFileError(
            f"{localizer.path}: segments a region of interest, but a localizer has to see the whole image; train one "
            "with: etnet train --recipe disc_localizer"
        )
    if takes.roi is None:
        raise ModelFileError(
            f"{segmenter.path}: segments whole images, so that it needs no bundle; use it alone, or train a network on "
            "regions of interest with data.roi in its recipe"
        )
    if finds.intensity_window != takes.intensity_window:
        raise ModelFileError(
            f"{localizer.path}: was trained with data.intensity_window {finds.intensity_window} and {segmenter.path} "
            f"with {takes.intensity_window}; a bundle reads each image once, so train both with the same window"
        )


def choose_structure(localizer: ModelDescription, wanted: str | None) -> str:
    """The structure whose centre is taken: the one named, or the localizer's only one.

    Raises:
        UsageError: There is no such structure, or several and none was named.
    """
    names = localizer.contract.class_names[1:]
    if wanted is None and len(names) > 1:
        choices = ", ".join([*names, *dict(localizer.contract.class_groups)])
        raise UsageError(f"{localizer.path}: finds several structures; choose one with --structure out of {choices}")
    structure = wanted or names[0]
    structure_classes(localizer.contract, structure)
    return structure


def require_free(output: Path) -> None:
    """Refuse to write a bundle where something is already.

    Raises:
        UsageError: The path exists and is no empty folder.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output}: exists already; choose another --output, or remove it first")


def write_bundle(
    localizer: Path,
    segmenter: Path,
    output: Path,
    *,
    rule: LocalizationRule,
    versions: Mapping[str, str | None] | None = None,
) -> BundleDescription:
    """Copy two models into a new bundle, which is there whole or not at all.

    Args:
        localizer: Weights or ONNX file that segments whole images.
        segmenter: Weights or ONNX file with a region of interest.
        output: Folder to make.
        rule: How the centre is read from the localizer's prediction.
        versions: Versions of the packages that made the bundle.

    Raises:
        UsageError: The folder exists already, a file is of another kind, or the localizer has no such structure.
        ModelFileError: A model is damaged, or the two do not fit.
        EnvironmentFault: The disk refuses; nothing is left.
    """
    require_free(output)
    models = {"localizer": localizer, "segmenter": segmenter}
    described = {stage: ModelDescription.of_file(require_kind(model)) for stage, model in models.items()}
    check_stages(described["localizer"], described["segmenter"])
    structure_classes(described["localizer"].contract, rule.structure)
    draft = output.absolute().with_name(f".{output.name[:64]}.{os.getpid()}.part")
    with disk_faults(output):
        try:
            draft.mkdir(parents=True)
            copies = [_copy(described[stage], draft, stage) for stage in STAGES]
            bundle = Bundle(copies[0], copies[1], rule, dict(versions or {}))
            write_text(draft / BUNDLE_FILE, _ADAPTER.dump_json(bundle, indent=2).decode() + "\n")
            # On an empty folder of that name, too; taking the name is one step.
            draft.replace(output)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return read_bundle(output)


def require_kind(model: Path) -> Path:
    """Refuse a file that is neither weights nor ONNX; returns it otherwise.

    Raises:
        UsageError: It is an engine.
    """
    if model.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{model}: a bundle holds weights ({SUFFIXES[0]}) or ONNX files ({SUFFIXES[1]}), because an engine runs "
            f"only where it was built; give the file that this one was made from to etnet bundle instead of "
            f"{shlex.quote(model.name)}"
        )
    return model


def _copy(model: ModelDescription, folder: Path, stage: str) -> StageFile:
    target = folder / f"{stage}{model.path.suffix.lower()}"
    shutil.copyfile(model.path, target)
    beside, copy = sidecar_path(model.path), sidecar_path(target)
    has_sidecar = model.sidecar is not None and beside.is_file()
    if has_sidecar:
        shutil.copyfile(beside, copy)
    return StageFile(
        target.name,
        file_sha256(target),
        target.stat().st_size,
        model.source.recipe,
        model.source.epoch,
        file_sha256(copy) if has_sidecar else None,
    )
