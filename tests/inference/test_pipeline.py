from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etnet.errors import DataError, EnvironmentFault
from etnet.inference.inputs import InputItem, find_inputs
from etnet.inference.pipeline import Pipeline, Step, Work, input_sha256
from etnet.inference.predictor import Predictor
from etnet.inference.result_files import OutputChoice, ResultWriter
from etnet.inference.results import Failure, ImageResult
from etnet.sidecar import file_sha256
from helpers.backends import PixelBackend, contract, image_of, random_labels
from helpers.medical import write_metaimage


def save(folder: Path, name: str, size: tuple[int, int] = (8, 8)) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(image_of(random_labels(*size))).save(folder / name)


def steps(folder: Path, backend: PixelBackend, *, work: Work | None = None, finished=None) -> list[Step]:
    predictor = Predictor(backend, contract())
    output = folder.parent / "out"
    output.mkdir(exist_ok=True)
    pipeline = Pipeline(
        predictor,
        ResultWriter(output, predictor.contract, OutputChoice()),
        work or Work(),
        finished=finished or (lambda _item, _sha256: None),
    )
    return list(pipeline.run(find_inputs(folder).items))


def test_images_of_one_network_size_share_a_run_also_when_others_lie_between(tmp_path):
    for index in range(12):
        # 40 and 45 rows are both padded to 48; 20 rows to 32.
        save(tmp_path / "images", f"{index:02}.png", ((40, 20, 45)[index % 3], 30))
    backend = PixelBackend()
    done = steps(tmp_path / "images", backend, work=Work(batch_size=4))
    assert sorted(step.result.file for step in done) == [f"{index:02}.png" for index in range(12)]
    assert sorted(backend.shapes) == [(4, 32, 32, 3), (4, 48, 32, 3), (4, 48, 32, 3)]


def test_of_many_sizes_none_waits_for_ever(tmp_path):
    for index in range(40):
        save(tmp_path / "images", f"{index:02}.png", (16 * (index + 1), 8))
    backend = PixelBackend()
    done = steps(tmp_path / "images", backend, work=Work(batch_size=2))
    assert len(done) == len(backend.shapes) == 40
    # The first images came out while others were still to be read.
    assert [step.result.file for step in done[:5]] == [f"{index:02}.png" for index in range(5)]


def test_as_many_batches_run_at_once_as_the_backend_wants(tmp_path):
    class TwoContexts(PixelBackend):
        concurrent_runs = 2
        together = threading.Barrier(2, timeout=30)

        def run(self, images, *, probabilities=True):
            self.together.wait()
            return super().run(images, probabilities=probabilities)

    for index in range(6):
        save(tmp_path / "images", f"{index}.png")
    assert len(steps(tmp_path / "images", TwoContexts())) == 6


def test_reading_and_writing_go_on_while_the_network_works(tmp_path):
    """With 0.05 s in each of three stages, twelve images take far less than the 1.8 s of one after the other."""

    class Slow(PixelBackend):
        def run(self, images, *, probabilities=True):
            time.sleep(0.05)
            return super().run(images, probabilities=probabilities)

    class SlowWriter(ResultWriter):
        def write(self, *arguments, **options):
            time.sleep(0.05)
            return super().write(*arguments, **options)

    for index in range(12):
        save(tmp_path / "images", f"{index:02}.png")
    (tmp_path / "out").mkdir()
    predictor = Predictor(Slow(), contract())
    writer = SlowWriter(tmp_path / "out", predictor.contract, OutputChoice())

    def finished(_item: InputItem, _sha256: str) -> None:
        time.sleep(0.05)

    pipeline = Pipeline(predictor, writer, Work(jobs=1), finished=finished)
    start = time.perf_counter()
    assert len(list(pipeline.run(find_inputs(tmp_path / "images").items))) == 12
    assert time.perf_counter() - start < 1.4


def test_a_device_that_fails_stops_the_run(tmp_path):
    class Lost(PixelBackend):
        def run(self, images, *, probabilities=True):
            raise EnvironmentFault("the GPU is lost")

    for name in "ab":
        save(tmp_path / "images", f"{name}.png")
    with pytest.raises(EnvironmentFault, match="the GPU is lost"):
        steps(tmp_path / "images", Lost())


def test_complete_inputs_are_not_decoded_again(tmp_path, monkeypatch):
    for name in "ab":
        save(tmp_path / "images", f"{name}.png")
    (first,) = [
        step.result
        for step in steps(tmp_path / "images", PixelBackend())
        if isinstance(step.result, ImageResult) and step.result.file == "a.png"
    ]
    asked: list[tuple[str, str]] = []

    def finished(item: InputItem, sha256: str) -> ImageResult | None:
        asked.append((item.id, sha256))
        return first if item.id == "a.png" else None

    backend = PixelBackend()
    found = {step.result.file: step for step in steps(tmp_path / "images", backend, finished=finished)}
    assert found["a.png"] == Step(first, is_new=False)
    assert found["b.png"].is_new
    assert len(backend.shapes) == 1
    assert sorted(asked) == [(f"{name}.png", file_sha256(tmp_path / f"images/{name}.png")) for name in "ab"]


def test_large_images_are_not_read_far_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr("etnet.inference.pipeline.MOST_PIXELS_UNDER_WAY", 64)
    opened, most, lock = 0, 0, threading.Lock()
    read = image_of(random_labels(8, 9))

    def counted(path, *, intensity_window=None):
        nonlocal opened, most
        with lock:
            opened += 1
            most = max(most, opened)
        return read

    class Counting(PixelBackend):
        def run(self, images, *, probabilities=True):
            nonlocal opened
            time.sleep(0.02)
            with lock:
                opened -= 1
            return super().run(images, probabilities=probabilities)

    monkeypatch.setattr("etnet.inference.input_images.read_image", counted)
    for index in range(20):
        save(tmp_path / "images", f"{index:02}.png")
    assert len(steps(tmp_path / "images", Counting(), work=Work(jobs=4))) == 20
    # One that fills the room, and those that the four readers had begun by then.
    assert most <= 1 + 4


def test_a_missing_file_is_a_failure_with_its_sentence(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/gone.png").symlink_to(tmp_path / "nowhere.png")
    (step,) = steps(tmp_path / "images", PixelBackend())
    assert isinstance(step.result, Failure)
    assert "cannot be opened" in step.result.reason


def header_naming(folder: Path, voxels: str) -> Path:
    path = folder / "a.mhd"
    path.write_bytes(
        b"NDims = 3\nDimSize = 5 4 3\nElementType = MET_UCHAR\n"
        + f"ElementDataFile = {voxels}\n".encode("utf-8", "surrogateescape")
    )
    return path


@pytest.mark.parametrize("name", ["a.raw", "a.zraw", "other name.bin", "below/voxels", "a"])
def test_the_hash_of_a_header_holds_the_voxels_that_it_names(tmp_path, name):
    path, voxels = header_naming(tmp_path, name), tmp_path / name
    voxels.parent.mkdir(exist_ok=True)
    hashes = []
    for value in (0, 1):
        voxels.write_bytes(bytes([value]) * 60)
        hashes.append(input_sha256(path))
    assert hashes[0] != hashes[1]
    joined = file_sha256(path) + hashlib.sha256(bytes([1]) * 60).hexdigest()
    assert hashes[1] == hashlib.sha256(joined.encode()).hexdigest()


def test_the_hash_of_a_header_is_not_that_of_what_lies_beside_it(tmp_path):
    write_metaimage(tmp_path / "a.mhd", np.zeros((3, 4, 5), np.uint8))
    before = input_sha256(tmp_path / "a.mhd")
    (tmp_path / "a.xraw").write_bytes(b"another file")
    assert input_sha256(tmp_path / "a.mhd") == before


@pytest.mark.parametrize(
    "name", ["gone.raw", "LOCAL", "LIST", "slice%03d.raw", ".", "x" * 300, "a\0b", "\udcff", "pipe"]
)
def test_the_hash_of_a_header_without_a_file_of_voxels_is_its_own(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    path = header_naming(tmp_path, name)
    assert input_sha256(path) == file_sha256(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"ElementDataFile = a.raw\n"])
def test_the_hash_of_an_unreadable_header_is_its_own(tmp_path, content):
    (tmp_path / "a.mhd").write_bytes(content)
    assert input_sha256(tmp_path / "a.mhd") == hashlib.sha256(content).hexdigest()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mhd")
    with pytest.raises(DataError, match="is a pipe, socket or device"):
        input_sha256(tmp_path / "a.mhd")
