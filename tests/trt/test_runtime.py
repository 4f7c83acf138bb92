"""The runner on a GPU of Python that works late and out of order; no real engine can run here."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from etnet.errors import EnvironmentFault, ModelFileError, UsageError
from etnet.trt.driver import Driver
from etnet.trt.plan import Placement
from etnet.trt.runtime import EngineRunner, load_engine
from helpers.engines import A10, engine_sidecar, write_engine_file
from helpers.fake_gpu import FakeArray, FakeEngine, FakeGpu, expected_outputs, fake_runtime

SIZE = (16, 32)


class Machine:
    """A runner with the GPU and the engine below it."""

    def __init__(self, tmp_path, *, seed=0, size=SIZE, profile=None, num_classes=2, **options):
        path = tmp_path / "model.engine"
        path.write_bytes(b"plan")
        self.gpu = FakeGpu(seed)
        self.engine = FakeEngine(self.gpu, size=size, num_classes=num_classes)
        self.sidecar = engine_sidecar(size, profile=profile, num_classes=num_classes)
        loaded = load_engine(path, self.sidecar, Placement(fake_runtime(self.engine), A10))
        self.runner = EngineRunner(path, self.sidecar, loaded, self.gpu, gpu=A10.name, **options)

    def count(self, word: str) -> int:
        return sum(entry.startswith(word) for entry in self.gpu.log)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def random_images(count=2, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def assert_outputs(found, images, names=("labels", "edges", "probabilities"), num_classes=2):
    wanted = expected_outputs(images, num_classes)
    assert set(found) == set(names)
    for name in names:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_batch_gives_what_the_engine_computes(tmp_path, num_classes):
    machine = Machine(tmp_path, num_classes=num_classes)
    for count in (1, 3, 4, 2):
        images = random_images(count, seed=count)
        assert_outputs(machine.runner.run(images), images, num_classes=num_classes)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("graphs", [True, False])
def test_a_sequence_of_batches_stays_in_order_whatever_the_gpu_does_first(tmp_path, seed, graphs):
    machine = Machine(tmp_path, seed=seed, graphs=graphs)
    batches = [random_images(1 + number % 3, seed=number) for number in range(9)]
    results = list(machine.runner.run_many(batches))
    assert len(results) == len(batches)
    for found, images in zip(results, batches, strict=True):
        assert_outputs(found, images)


def test_the_caller_may_reuse_one_array_for_all_batches(machine):
    buffer = np.empty((2, *SIZE, 3), np.uint8)

    def batches():
        for seed in range(5):
            buffer[:] = random_images(seed=seed)
            yield buffer

    for seed, found in enumerate(machine.runner.run_many(batches())):
        assert_outputs(found, random_images(seed=seed))


def test_results_belong_to_the_caller(machine):
    first = machine.runner.run(random_images(seed=1))
    kept = {name: value.copy() for name, value in first.items()}
    for seed in range(4):
        machine.runner.run(random_images(seed=seed))
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_two_batches_are_under_way_at_once(machine):
    asked: list[int] = []

    def batches():
        for seed in range(4):
            asked.append(machine.count("download") // 3)
            yield random_images(seed=seed)

    results = machine.runner.run_many(batches())
    next(results)
    # The third was asked for before the first was handed out: the first two were submitted by then.
    assert asked == [0, 1, 2]


def test_only_the_outputs_asked_for_are_copied_back_and_pinned(machine):
    images = random_images()
    assert_outputs(machine.runner.run(images, ["labels"]), images, ["labels"])
    pixels = images[..., 0].size
    assert [entry for entry in machine.gpu.log if entry.startswith("download")] == [f"download {pixels}"]
    largest = 4 * SIZE[0] * SIZE[1]
    assert sorted(entry for entry in machine.gpu.log if entry.startswith("pin")) == sorted(
        [f"pin {3 * largest}"] * 2 + [f"pin {largest}"]
    )
    with pytest.raises(UsageError, match="has no output masks; it has labels, edges, probabilities"):
        machine.runner.run(images, ["masks"])


def test_a_graph_is_recorded_once_per_shape_and_slot_after_a_warm_up(machine):
    for number in range(10):
        images = random_images(2, seed=number)
        assert_outputs(machine.runner.run(images), images)
    # A single run always uses the first slot: one warm-up, one recording, nine replays.
    assert machine.count("capture") == 1
    assert machine.count("graph") == 9
    machine.runner.run(random_images(3))
    assert machine.count("capture") == 1
    machine.runner.run(random_images(3))
    assert machine.count("capture") == 2
    list(machine.runner.run_many(random_images(2, seed=seed) for seed in range(8)))
    assert machine.count("capture") == 3


def test_an_engine_that_cannot_be_recorded_runs_without_graphs(machine):
    machine.gpu.capturable = False
    for seed in range(4):
        assert_outputs(machine.runner.run(random_images(seed=seed)), random_images(seed=seed))
    assert machine.count("capture") == 0
    assert machine.count("enqueue") == 4


def test_graphs_of_many_sizes_are_recorded_again_rather_than_kept(tmp_path):
    profile = ((16, 16), (32, 32), (64, 64))
    machine = Machine(tmp_path, size=None, profile=profile)
    sizes = [(height, width) for height in range(16, 80, 16) for width in range(16, 80, 16)]
    assert len(sizes) == 16
    for size in [*sizes, *sizes, (16, 16)]:
        images = random_images(1, size)
        assert_outputs(machine.runner.run(images), images)
    assert machine.count("capture") == 16
    for count in (2, 2, 1):
        images = random_images(count, (32, 16))
        assert_outputs(machine.runner.run(images), images)


def test_the_graph_of_a_size_in_use_is_kept(tmp_path):
    machine = Machine(tmp_path, size=None, profile=((16, 16), (32, 32), (64, 128)))
    usual = random_images(1, (16, 16))
    machine.runner.run(usual)
    for number in range(20):
        machine.runner.run(random_images(1, (16 + 16 * (number % 4), 32 + 16 * (number // 4))))
        machine.runner.run(usual)
    assert machine.count("capture") == 1


def test_threads_take_a_context_each_and_get_their_own_results(tmp_path):
    machine = Machine(tmp_path, workers=3)
    problems: list[BaseException] = []

    def work(thread):
        try:
            for number in range(15):
                images = random_images(1 + number % 4, seed=100 * thread + number)
                assert_outputs(machine.runner.run(images), images)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert 1 <= machine.engine.contexts <= 3


def test_one_thread_after_another_shares_a_context(machine):
    for seed in range(5):
        thread = threading.Thread(target=machine.runner.run, args=(random_images(seed=seed),))
        thread.start()
        thread.join()
    assert machine.engine.contexts == 1


def test_a_caller_that_wants_no_more_leaves_the_worker_clean(machine):
    results = machine.runner.run_many(random_images(seed=seed) for seed in range(6))
    next(results)
    results.close()
    # Nothing is left that would write into buffers after they were freed.
    assert not any(stream.queue for stream in machine.gpu.streams.values())
    images = random_images(seed=50)
    assert_outputs(machine.runner.run(images), images)
    assert machine.engine.contexts == 1


def test_an_error_in_the_callers_batches_leaves_the_worker_clean(machine):
    def batches():
        yield random_images()
        raise ValueError("the camera is gone")

    with pytest.raises(ValueError, match="the camera is gone"):
        list(machine.runner.run_many(batches()))
    images = random_images(seed=9)
    assert_outputs(machine.runner.run(images), images)


def test_images_on_the_gpu_stay_there_and_wait_for_the_caller(machine):
    images = random_images(seed=3)
    source = FakeArray(machine.gpu, images.shape, images.dtype)
    # The caller's own work on the array has not run yet.
    machine.gpu.caller.add(lambda: source.block.bytes.__setitem__(slice(None), images.reshape(-1)))
    for _ in range(3):
        found = machine.runner.run_on_gpu(source, ["labels", "probabilities"])
        assert all(isinstance(array, FakeArray) for array in found.values())
        assert_outputs({name: array.get() for name, array in found.items()}, images, ["labels", "probabilities"])
    assert machine.count("upload") == machine.count("download") == 0
    assert machine.count("capture") == 1


@pytest.mark.parametrize("seed", range(10))
def test_memory_that_its_former_owner_still_writes_is_not_used_early(tmp_path, seed, monkeypatch):
    machine = Machine(tmp_path, seed=seed)
    reserve = machine.gpu.device

    def reused(size):
        block = reserve(size)
        machine.gpu.caller.add(lambda: block.bytes.__setitem__(slice(None), 7))
        return block

    monkeypatch.setattr(machine.gpu, "device", reused)
    images = random_images()
    assert_outputs(machine.runner.run(images), images)


def test_a_failure_of_the_gpu_is_a_sentence_and_the_next_run_is_tried(machine):
    machine.engine.fails = True
    with pytest.raises(EnvironmentFault, match=r"the engine failed on the GPU \(.*\); if memory is short"):
        machine.runner.run(random_images())
    machine.engine.fails = False
    assert_outputs(machine.runner.run(random_images()), random_images())


def test_a_context_that_does_not_fit_is_a_sentence(machine, monkeypatch):
    monkeypatch.setattr(machine.engine, "create_execution_context", lambda: None)
    with pytest.raises(EnvironmentFault, match="too little memory for another context"):
        machine.runner.run(random_images())


def test_closing_waits_for_the_threads_and_frees_once(machine):
    started, go_on, done = threading.Event(), threading.Event(), []

    def batches():
        yield random_images()
        started.set()
        go_on.wait(10)

    runs = threading.Thread(target=lambda: done.append(len(list(machine.runner.run_many(batches())))))
    closes = threading.Thread(target=lambda: (machine.runner.close(), done.append("closed")))
    runs.start()
    started.wait(10)
    closes.start()
    go_on.set()
    runs.join(10)
    closes.join(10)
    assert done == [1, "closed"]
    assert machine.gpu.closed
    machine.runner.close()
    with pytest.raises(UsageError, match="the engine was closed"):
        machine.runner.run(random_images())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((16, 32, 3), np.uint8), r"expected images \[N, H, W, 3\] of uint8, got uint8 \[16, 32, 3\]"),
        (np.zeros((1, 16, 32, 3), np.float32), "got float32"),
        (np.zeros((0, 16, 32, 3), np.uint8), "takes 1 to 4 images at once, got 0"),
        (np.zeros((6, 16, 32, 3), np.uint8), r"got 6; .*--batch 1,2,6 .*--overwrite$"),
        (np.zeros((1, 32, 32, 3), np.uint8), "takes images of 16x32 pixels, got 32x32; .*--size 32x32"),
    ],
)
def test_images_that_the_engine_does_not_take_are_refused_with_the_command(machine, images, message):
    with pytest.raises(UsageError, match=message):
        machine.runner.run(images)
    assert machine.count("upload") == 0


def test_sizes_outside_of_the_range_and_no_multiples_are_refused(tmp_path):
    runner = Machine(tmp_path, size=None, profile=((16, 16), (32, 32), (48, 64))).runner
    with pytest.raises(UsageError, match=r"multiples of 16 pixels, got 40x40; pad it to 48x48"):
        runner.run(np.zeros((1, 40, 40, 3), np.uint8))
    with pytest.raises(UsageError, match=r"from 16x16 to 48x64 pixels, got 64x32; .* 16x16,32x32,64x64 "):
        runner.run(np.zeros((1, 64, 32, 3), np.uint8))


class TestOpening:
    """The order of the checks before and after loading, which is running code."""

    @pytest.fixture
    def engine_file(self, tmp_path):
        return write_engine_file(tmp_path / "model.engine")

    @pytest.fixture
    def installed(self, monkeypatch):
        gpu = FakeGpu()
        engine = FakeEngine(gpu, size=SIZE)
        loads: list[bytes] = []
        library = fake_runtime(engine)

        def deserialize(plan):
            loads.append(plan)
            return engine

        library.module.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize)
        monkeypatch.setattr("etnet.trt.plan.find_runtimes", lambda name: [library])
        monkeypatch.setattr("etnet.trt.runtime.open_memory", lambda name, device: gpu)
        return engine, loads

    def test_a_good_engine_runs(self, engine_file, installed):
        with EngineRunner.open(engine_file, driver=Driver((A10,))) as runner:
            assert_outputs(runner.run(random_images()), random_images())
            assert runner.memory == "fake"
        assert installed[1] == [b"plan"]

    @pytest.mark.parametrize(
        ("damage", "driver", "message"),
        [
            (lambda path: path.write_bytes(b"plaN"), Driver((A10,)), "its bytes are not those"),
            (lambda path: path.with_name("model.engine.json").unlink(), Driver((A10,)), "has no sidecar"),
            (lambda path: None, Driver(problem="no NVIDIA driver"), "needs an NVIDIA GPU"),
            (lambda path: None, Driver((replace(A10, name="NVIDIA L4", compute_capability=(8, 9)),)), "was built on"),
        ],
        ids=["changed byte", "no sidecar", "no GPU", "other GPU"],
    )
    def test_nothing_is_loaded_before_the_checks(self, engine_file, installed, damage, driver, message):
        damage(engine_file)
        with pytest.raises((ModelFileError, EnvironmentFault), match=message):
            EngineRunner.open(engine_file, driver=driver)
        assert installed[1] == []

    def test_other_tensors_than_the_sidecars_are_refused(self, engine_file, installed):
        engine, _ = installed
        engine.tensors["labels"] = ("INT32", engine.tensors["labels"][1])
        with pytest.raises(ModelFileError, match=r"holds the tensors .*'labels': 'INT32'.*build it again with"):
            EngineRunner.open(engine_file, driver=Driver((A10,)))

    def test_another_shape_than_the_sidecars_is_refused(self, engine_file, installed):
        engine, _ = installed
        engine.tensors["image"] = ("UINT8", (-1, 64, 64, 3))
        with pytest.raises(ModelFileError, match=r"its tensor image has shape \[-1, 64, 64, 3\]"):
            EngineRunner.open(engine_file, driver=Driver((A10,)))

    def test_an_engine_that_the_library_refuses_is_a_sentence(self, engine_file, monkeypatch):
        monkeypatch.setattr("etnet.trt.plan.find_runtimes", lambda name: [fake_runtime(None)])
        monkeypatch.setattr("etnet.trt.runtime.open_memory", lambda name, device: FakeGpu())
        with pytest.raises(EnvironmentFault, match=r"TensorRT 10\.13\.2 cannot load it on NVIDIA A10"):
            EngineRunner.open(engine_file, driver=Driver((A10,)))
