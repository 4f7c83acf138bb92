from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from etnet.errors import DataError
from etnet.inference.input_images import open_input
from etnet.inference.inputs import InputItem, find_inputs
from helpers.broken_files import KINDS, BrokenKind, write_broken
from helpers.medical import IDENTIFIERS, write_dicom

KIND = pytest.mark.parametrize("kind", KINDS, ids=[f"{kind.name}{kind.suffix}" for kind in KINDS])


def refusal(path: Path, window: tuple[float, float] | None = None) -> str:
    """The one sentence about a file, without its name."""
    with pytest.raises(DataError) as caught:
        open_input(InputItem(path.name, path, path.stem), intensity_window=window)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


@KIND
@pytest.mark.parametrize(("window", "seed"), [(None, 0), ((0.0, 255.0), 1)], ids=["no window", "window"])
def test_every_kind_of_broken_file_is_one_sentence_and_nothing_else(
    tmp_path, capfd, caplog, kind: BrokenKind, window, seed
):
    reason = refusal(kind.write_to(tmp_path, seed), window)
    for word in kind.words:
        assert word in reason
    assert ";" in reason, "it does not say what to do"
    assert not [word for word in IDENTIFIERS if word in reason]
    # Decoders in C print what they miss, and some of them what they read.
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@KIND
def test_every_kind_of_broken_file_is_listed_with_the_images_of_a_folder(tmp_path, kind):
    path = kind.write_to(tmp_path)
    found = find_inputs(tmp_path)
    named = [item.id for item in found.items] + [name for name, _ in found.unreadable]
    assert named == [path.name]


OPENED_ONE_BY_ONE = """
import json, resource, sys, time
from pathlib import Path
from etnet.data.medical_packages import import_for
from etnet.errors import DataError
from etnet.inference.input_images import open_input
from etnet.inference.inputs import InputItem

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for package in ("pydicom.pixels", "nibabel.orientations", "SimpleITK", "gdcm"):
    import_for(Path("x"), package)
megabytes, seconds = {}, {}
for name in sys.argv[1:]:
    path, before, start = Path(name), peak(), time.perf_counter()
    try:
        open_input(InputItem(path.name, path, path.stem), intensity_window=(0, 255))
        sys.exit(f"{path} was opened")
    except DataError:
        megabytes[path.name], seconds[path.name] = peak() - before, time.perf_counter() - start
print(json.dumps([megabytes, seconds]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the peak of memory in other units")
def test_no_broken_file_takes_memory_or_time_that_only_its_header_announces(tmp_path):
    paths = [path for _, path in write_broken(tmp_path, of_each=1)]
    command = [sys.executable, "-c", OPENED_ONE_BY_ONE, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    megabytes, seconds = json.loads(result.stdout)
    assert {name: value for name, value in megabytes.items() if value > 48} == {}
    # The deflated file alone has to be unpacked, up to the limit.
    assert {name: value for name, value in seconds.items() if value > 20} == {}


def test_the_kinds_are_many_and_their_files_differ(tmp_path):
    assert len(KINDS) >= 20
    assert len({(kind.name, kind.suffix) for kind in KINDS}) == len(KINDS)
    files = [path for _, path in write_broken(tmp_path, of_each=3)]
    contents = [path.read_bytes() for path in files if path.is_file() and path.stat().st_size]
    # Those without content and the film, whose pixels are no pixels, cannot.
    assert len(set(contents)) >= len(contents) - 4


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.nii.gz", "a.mhd", "a"])
def test_a_folder_a_pipe_and_a_device_named_in_a_table_are_refused(tmp_path, name):
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert "is a folder, not a file" in refusal(tmp_path / "folder" / name)
    os.mkfifo(tmp_path / name)
    assert "is a pipe, socket or device" in refusal(tmp_path / name)
    (tmp_path / f"endless_{name}").symlink_to("/dev/zero")
    assert "is a pipe, socket or device" in refusal(tmp_path / f"endless_{name}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.nii.gz", "a.mha"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"secret")
    (tmp_path / name).chmod(0)
    assert "cannot be opened (Permission denied)" in refusal(tmp_path / name)


def test_an_image_of_one_value_is_an_image(tmp_path):
    """Blank images are reported as such, not refused: whether that is an error only people know."""
    path = write_dicom(tmp_path / "x.dcm", np.full((6, 9), 1234, np.uint16))
    image = open_input(InputItem("x", path, "x"), intensity_window=None)
    assert len(np.unique(image.pixels())) == 1


def test_broken_files_are_refused_in_threads_as_alone(tmp_path, capfd):
    files = [path for _, path in write_broken(tmp_path, of_each=1)]
    alone = [refusal(path) for path in files]
    together: dict[int, str] = {}
    threads = [
        threading.Thread(
            target=lambda part: together.update({index: refusal(files[index]) for index in part}), args=(part,)
        )
        for part in (range(0, len(files), 2), range(1, len(files), 2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(files))] == alone
    assert capfd.readouterr() == ("", "")
