from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.inference.bundle import is_bundle, read_bundle, write_bundle
from etnet.inference.localize import LocalizationRule
from etnet.sidecar import file_sha256
from helpers.bundles import localizer_recipe, segmenter_recipe, write_stage_headers
from helpers.onnx_graphs import write_small_onnx
from helpers.weights import write_header_only

RULE = LocalizationRule("optic_disc", 0.004)


@pytest.fixture
def stages(tmp_path) -> tuple[Path, Path]:
    return write_stage_headers(tmp_path)


@pytest.fixture
def bundle(stages, tmp_path) -> Path:
    write_bundle(*stages, tmp_path / "bundle", rule=RULE)
    return tmp_path / "bundle"


def changed(bundle: Path, **values: object) -> Path:
    path = bundle / "bundle.json"
    content = json.loads(path.read_text())
    for name, value in values.items():
        *folders, last = name.split("__")
        place = content
        for folder in folders:
            place = place[folder]
        place[last] = value
    path.write_text(json.dumps(content))
    return bundle


def test_a_bundle_holds_copies_of_both_models_and_their_hashes(stages, bundle):
    assert sorted(path.name for path in bundle.iterdir()) == [
        "bundle.json",
        "localizer.safetensors",
        "segmenter.safetensors",
    ]
    content = json.loads((bundle / "bundle.json").read_text())
    for name, model in zip(("localizer", "segmenter"), stages, strict=True):
        assert content[name]["sha256"] == file_sha256(model) == file_sha256(bundle / content[name]["file"])
        assert content[name]["bytes"] == model.stat().st_size
    assert content["rule"] == {"structure": "optic_disc", "min_area": 0.004}


def test_what_was_written_is_read_back(bundle):
    described = read_bundle(bundle)
    assert described.bundle.rule == RULE
    assert described.localizer.contract == localizer_recipe().contract()
    assert described.segmenter.contract == segmenter_recipe().contract()
    assert described.contract.roi is not None
    assert is_bundle(bundle)
    content = described.to_dict()
    assert content["kind"] == "bundle"
    assert content["class_names"] == ["background", "optic_rim", "optic_cup"]
    assert content["localizer"]["class_names"] == ["background", "optic_disc"]
    assert content["localization"] == {"structure": "optic_disc", "min_area": 0.004}
    assert content["sha256"] == file_sha256(bundle / "bundle.json")
    json.dumps(content, allow_nan=False)


def test_a_bundle_can_be_moved(bundle, tmp_path):
    shutil.move(bundle, tmp_path / "elsewhere")
    assert read_bundle(tmp_path / "elsewhere").localizer.path == tmp_path / "elsewhere/localizer.safetensors"


def test_onnx_files_are_copied_with_their_sidecars_and_kinds_can_be_mixed(stages, tmp_path):
    onnx = write_small_onnx(tmp_path / "model.onnx")
    described = write_bundle(onnx, stages[1], tmp_path / "mixed", rule=LocalizationRule("vessel"))
    assert sorted(path.name for path in (tmp_path / "mixed").iterdir()) == [
        "bundle.json",
        "localizer.onnx",
        "localizer.onnx.json",
        "segmenter.safetensors",
    ]
    assert described.localizer.sidecar is not None
    assert described.localizer.sidecar.file_sha256 == file_sha256(onnx)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0), "wrong order"),
        ((1, 1), "has to see the whole image"),
        ((0, 0), "needs no bundle"),
    ],
)
def test_stages_that_do_not_fit_are_refused(stages, tmp_path, order, message):
    with pytest.raises(ModelFileError, match=message):
        write_bundle(stages[order[0]], stages[order[1]], tmp_path / "out", rule=RULE)
    assert not (tmp_path / "out").exists()


def test_stages_that_read_pixels_differently_are_refused(stages, tmp_path):
    other = write_header_only(tmp_path / "window.safetensors", localizer_recipe(intensity_window=[0, 4095]))
    with pytest.raises(ModelFileError, match="intensity_window"):
        write_bundle(other, stages[1], tmp_path / "out", rule=RULE)


def test_a_structure_that_the_localizer_lacks_is_refused(stages, tmp_path):
    with pytest.raises(UsageError, match="expected one of optic_disc"):
        write_bundle(*stages, tmp_path / "out", rule=LocalizationRule("macula"))
    assert not (tmp_path / "out").exists()


def test_an_engine_is_refused(stages, tmp_path):
    engine = tmp_path / "model.engine"
    engine.touch()
    with pytest.raises(UsageError, match="an engine runs only where it was built"):
        write_bundle(stages[0], engine, tmp_path / "out", rule=RULE)


def test_an_output_that_exists_is_not_touched_but_an_empty_folder_is_filled(stages, bundle, tmp_path):
    before = (bundle / "bundle.json").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write_bundle(*stages, bundle, rule=LocalizationRule("optic_disc"))
    assert (bundle / "bundle.json").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="exists already"):
        write_bundle(*stages, tmp_path / "file", rule=RULE)
    (tmp_path / "empty").mkdir()
    assert write_bundle(*stages, tmp_path / "empty", rule=RULE).path == tmp_path / "empty"


@pytest.mark.parametrize("full_at", [1, 2])
def test_a_full_disk_leaves_nothing(stages, tmp_path, monkeypatch, full_at):
    copies = []
    copyfile = shutil.copyfile

    def limited(source, target):
        copies.append(target)
        if len(copies) == full_at:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return copyfile(source, target)

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "copyfile", limited)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_bundle(*stages, tmp_path / "out", rule=RULE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_a_bundle_is_as_open_as_other_folders(bundle, tmp_path):
    (tmp_path / "other").mkdir()
    assert bundle.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_model_with_other_bytes_is_refused(bundle):
    with (bundle / "segmenter.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x07")
    with pytest.raises(ModelFileError, match=r"segmenter\.safetensors: its bytes are not those that bundle\.json"):
        read_bundle(bundle)


def test_a_sidecar_with_other_bytes_is_refused_and_a_missing_one_named(stages, tmp_path):
    onnx, folder = write_small_onnx(tmp_path / "model.onnx"), tmp_path / "mixed"
    write_bundle(onnx, stages[1], folder, rule=LocalizationRule("vessel"))
    sidecar = folder / "localizer.onnx.json"
    content = json.loads((folder / "bundle.json").read_text())
    assert content["localizer"]["sidecar_sha256"] == file_sha256(sidecar)
    assert content["segmenter"]["sidecar_sha256"] is None
    sidecar.write_text(sidecar.read_text() + " ")
    with pytest.raises(ModelFileError, match=r"localizer\.onnx\.json: its bytes are not those .* again"):
        read_bundle(folder)
    sidecar.unlink()
    with pytest.raises(ModelFileError, match=r"localizer\.onnx\.json: cannot be read .* bundle\.json names it"):
        read_bundle(folder)


def test_a_bundle_of_before_sidecars_were_noted_opens(stages, tmp_path):
    onnx, folder = write_small_onnx(tmp_path / "model.onnx"), tmp_path / "mixed"
    write_bundle(onnx, stages[1], folder, rule=LocalizationRule("vessel"))
    content = json.loads((folder / "bundle.json").read_text())
    for stage in ("localizer", "segmenter"):
        del content[stage]["sidecar_sha256"]
    (folder / "bundle.json").write_text(json.dumps(content))
    assert read_bundle(folder).localizer.sidecar is not None


def test_a_missing_model_is_named(bundle):
    (bundle / "localizer.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"localizer\.safetensors: cannot be read .*copy the whole folder"):
        read_bundle(bundle)


def test_a_folder_without_a_description_names_the_command(tmp_path):
    assert not is_bundle(tmp_path)
    with pytest.raises(ModelFileError, match="etnet bundle LOCALIZER SEGMENTER"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"kind": "three_stage"}, "damaged .kind"),
        ({"rule": {"structure": "optic_disc", "min_area": 7}}, "smallest area is 7"),
        ({"rule__structure": "macula"}, "no structure 'macula'"),
        ({"localizer__file": "../localizer.safetensors"}, "no name of a model file"),
        ({"segmenter__file": "model.engine"}, "no name of a model file"),
        ({"segmenter__sha256": None}, "damaged .segmenter.sha256"),
    ],
)
def test_a_description_that_is_damaged_says_where(bundle, values, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        read_bundle(changed(bundle, **values))
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_json_is_one_sentence(bundle):
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(ModelFileError, match="damaged"):
        read_bundle(bundle)
