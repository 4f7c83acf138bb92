"""The network in PyTorch, on CPU or one GPU. Beside `torch_tf32` no other file of the inference layer imports torch."""

from __future__ import annotations

import copy
import dataclasses
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from etnet.errors import EnvironmentFault, OutOfMemory, UsageError
from etnet.inference.backends import NOT_FINITE, NetworkOutputs, OpenedModel
from etnet.inference.backends.torch_tf32 import tf32_allowed
from etnet.inference.model_file import ModelDescription
from etnet.types import Contract, UInt8Array

if TYPE_CHECKING:
    from collections.abc import Callable

    from etnet.models import ETNetOutput, SegmentationNetwork

Precision = Literal["float32", "bfloat16", "float16"]
Compiler = Literal["inductor", "tensorrt"]

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "could not allocate", "std::bad_alloc")


def resolve_device(device: str) -> torch.device:
    """The torch device meant by `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: The word is none of these.
        EnvironmentFault: A GPU is asked for and torch sees none, or not that one.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", device)
    if match is None:
        raise UsageError(f"device is '{device}'; expected auto, cpu, cuda or cuda:N")
    if device != "cpu":
        _check_cuda(int(match[1] or 0))
    return torch.device(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch failed for want of memory; on a CPU only the text of the error tells."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        text in str(error).lower() for text in _OUT_OF_MEMORY
    )


def _check_cuda(index: int) -> None:
    if not torch.cuda.is_available():
        built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise EnvironmentFault(
            f"device cuda was asked for, but torch {torch.__version__} ({built_for}) sees no NVIDIA GPU; "
            "use --device cpu, or install a GPU driver and a torch build for it"
        )
    if index >= torch.cuda.device_count():
        raise EnvironmentFault(f"device cuda:{index} was asked for, but torch sees {torch.cuda.device_count()} GPU(s)")


class TorchBackend:
    """Runs a network of `etnet.models` in evaluation mode.

    In float32 a GPU computes float32 and gives the masks of a CPU, but where two classes are all but equally probable.
    Left to itself torch would round the inputs of convolutions to tf32, which is faster; a run turns that off for as
    long as it takes, in the whole process, and sets it as it was. `tf32=True` asks for the rounding.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        contract: Contract,
        *,
        device: str = "auto",
        precision: Precision = "float32",
        compiled: bool = False,
        channels_last: bool = True,
        compiler: Compiler = "inductor",
        cuda_graph: bool = False,
        tf32: bool | None = False,
    ) -> None:
        """Move the network to the device.

        Args:
            network: The network; it stays the caller's in float32, and is copied for another precision.
            contract: Image preparation of its weights.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: Of weights and activations; normalisation and probabilities are float32.
            compiled: Compile with torch.compile at the first run of each input size (about a minute); on a GPU also
                capture CUDA graphs.
            channels_last: Lay maps out as NHWC, the faster layout of convolutions in both cuDNN and oneDNN; without it
                the network runs as PyTorch users who change nothing run it.
            compiler: What compiles: torch's own, or TensorRT through the package torch-tensorrt, on a GPU.
            cuda_graph: Capture all kernels of the last input size once, and start them at once in every run, on a GPU.
            tf32: Whether a GPU may round the inputs of float32 products to tf32; None computes as torch is set, which
                out of the box rounds in convolutions and not in matrix products.

        Raises:
            UsageError: The device is unknown, or is a processor and an option is for GPUs; or options exclude each
                other.
            EnvironmentFault: The GPU or torch-tensorrt is missing.
        """
        self._device = resolve_device(device)
        asked = {"tf32": bool(tf32), "a CUDA graph": cuda_graph, "torch-tensorrt": compiler == "tensorrt"}
        _require_gpu_for([name for name, wanted in asked.items() if wanted], self._device)
        _require_no_conflict(precision, compiler, compiled=compiled, cuda_graph=cuda_graph, tf32=bool(tf32))
        self._precision = precision
        self._compiled = compiled
        self._dtype: torch.dtype = getattr(torch, precision)
        if precision != "float32":
            network = copy.deepcopy(network)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._network = network.eval().to(self._device, self._dtype).to(memory_format=self._layout)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(contract.mean, dtype=torch.float32, device=self._device).view(shape)
        self._std = torch.tensor(contract.std, dtype=torch.float32, device=self._device).view(shape)
        self._staging: dict[tuple[int, ...], Tensor] = {}
        self._running = threading.Lock()
        self._tf32, self._graph, self._compiler = tf32, cuda_graph, compiler
        self._computed: Callable[..., _DeviceOutputs] = _Graphed(self._compute) if cuda_graph else self._compute
        if compiled and compiler == "tensorrt":
            self._network = _with_tensorrt(self._network, tf32=tf32)
        elif compiled:
            mode = "reduce-overhead" if self._device.type == "cuda" else "default"
            self._computed = torch.compile(self._compute, mode=mode, dynamic=False)

    @classmethod
    def from_file(cls, path: Path, *, device: str = "auto", **options: Any) -> TorchBackend:
        """Load a weights file written by training; see the constructor.

        Raises:
            ModelFileError: The file is damaged or was not written by etnet.
            EnvironmentFault: The device does not exist.
        """
        from etnet.manifest import read_weights_info
        from etnet.models.weights import load_network

        resolve_device(device)
        contract = read_weights_info(path).contract
        return cls(load_network(path), contract, device=device, **options)

    @property
    def name(self) -> str:
        """Runtime and device in a few words, with the precision and compilation where they are not the default."""
        unusual = [self._precision] * (self._precision != "float32") + ["compiled"] * self._compiled
        unusual += ["by TensorRT"] * (self._compiler == "tensorrt") + ["graph"] * self._graph
        unusual += ["tf32"] * bool(self._tf32)
        unusual += ["nchw"] * (self._layout is torch.contiguous_format)
        return " ".join([f"torch {self._device}", *unusual])

    @property
    def input_size(self) -> None:
        """Any multiple of the contract's `size_multiple`."""
        return None

    @property
    def max_batch(self) -> None:
        """As many as fit into memory."""
        return None

    @property
    def concurrent_runs(self) -> int:
        """Two on a GPU, of which one computes while the other prepares its images; a processor has nothing to spare."""
        return 2 if self._device.type == "cuda" else 1

    def close(self) -> None:
        """Do nothing: the network's memory goes with its last reference, which may be a caller's."""

    def run(self, images: UInt8Array, *, probabilities: bool = True) -> NetworkOutputs:
        """Predict a batch; see `Backend.run`.

        Raises:
            OutOfMemory: The device has too little memory for this batch.
        """
        return self._run(images, probabilities=probabilities)

    def run_in_stages(
        self, images: UInt8Array, *, probabilities: bool = True
    ) -> tuple[NetworkOutputs, dict[str, float]]:
        """As `run`, with the seconds of `compute`, and on a GPU of `copy_in` and `copy_out`.

        Raises:
            OutOfMemory: The device has too little memory for this batch.
        """
        clock = _StageClock(self._device)
        outputs = self._run(images, probabilities=probabilities, clock=clock)
        return outputs, clock.seconds if self._device.type == "cuda" else {"compute": sum(clock.seconds.values())}

    def peak_device_memory(self) -> int | None:
        """Most bytes that torch had allocated on the GPU so far; None on a CPU."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None

    def _run(self, images: UInt8Array, *, probabilities: bool, clock: _StageClock | None = None) -> NetworkOutputs:
        lap = clock.lap if clock is not None else _no_lap
        try:
            with self._running, torch.inference_mode(), tf32_allowed(self._tf32):
                batch = self._upload(images)
                lap("copy_in")
                labels, *others = self._computed(batch, probabilities=probabilities)
                lap("compute")
                edges, softmax = (None if output is None else output.cpu().numpy() for output in others)
                outputs = NetworkOutputs(labels.cpu().numpy(), edges, softmax)
                lap("copy_out")
                return outputs
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            count, height, width = images.shape[:3]
            raise OutOfMemory(
                f"{self.name} has too little memory for {count} image(s) of {height}x{width} pixels; "
                "use a smaller --batch-size, smaller images, or another --device"
            ) from error

    def _upload(self, images: UInt8Array) -> Tensor:
        """The batch on the device; a GPU copies twice as fast from page-locked memory, kept for the last shape."""
        if self._device.type != "cuda":
            return torch.from_numpy(np.ascontiguousarray(images))
        if images.shape not in self._staging:
            self._staging = {images.shape: torch.empty(images.shape, dtype=torch.uint8, pin_memory=True)}
        staging = self._staging[images.shape]
        staging.copy_(torch.from_numpy(np.ascontiguousarray(images)))
        return staging.to(self._device, non_blocking=True)

    def _compute(self, images: Tensor, *, probabilities: bool) -> _DeviceOutputs:
        """Labels, edges and probabilities, as in `NetworkOutputs`, of images [N, H, W, 3], uint8."""
        normalised = (images.permute(0, 3, 1, 2).float() - self._mean) / self._std
        # A permuted NHWC batch already is channels_last: for that layout nothing is copied.
        output: ETNetOutput = self._network(normalised.to(self._dtype).contiguous(memory_format=self._layout))
        logits = output.seg_logits.float()
        finite = torch.isfinite(logits).all(dim=1)
        edges = None
        if output.edge_logits is not None:
            boundary = torch.softmax(output.edge_logits.float(), dim=1)[:, 1]
            finite &= torch.isfinite(output.edge_logits).all(dim=1)
            edges = (boundary * 255).round().to(torch.uint8)
        labels = logits.argmax(dim=1).to(torch.uint8).masked_fill(~finite, NOT_FINITE)
        return labels, edges, torch.softmax(logits, dim=1).contiguous() if probabilities else None


_DeviceOutputs = tuple[Tensor, "Tensor | None", "Tensor | None"]


class _Graphed:
    """Runs a computation as one CUDA graph, captured for the last shape of its input.

    What it returns is overwritten by the next run, so that its caller copies it before.
    """

    def __init__(self, compute: Callable[..., _DeviceOutputs]) -> None:
        self._compute = compute
        self._captured: tuple[object, torch.cuda.CUDAGraph, Tensor, _DeviceOutputs] | None = None

    def __call__(self, images: Tensor, *, probabilities: bool) -> _DeviceOutputs:
        with torch.cuda.device(images.device):
            key = (images.shape, probabilities)
            if self._captured is None or self._captured[0] != key:
                # The memory of the old graph is given back before the new one takes its own.
                self._captured = None
                self._captured = (key, *self._capture(images, probabilities=probabilities))
            _, graph, given, outputs = self._captured
            given.copy_(images)
            graph.replay()
            return outputs

    def _capture(self, images: Tensor, *, probabilities: bool) -> tuple[torch.cuda.CUDAGraph, Tensor, _DeviceOutputs]:
        given = images.clone()
        # Libraries allocate and choose algorithms in the first runs, which a capture does not allow.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._compute(given, probabilities=probabilities)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which decode and copy, go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._compute(given, probabilities=probabilities)
        return graph, given, outputs


def _require_gpu_for(options: list[str], device: torch.device) -> None:
    if options and device.type != "cuda":
        raise UsageError(f"{options[0]} needs an NVIDIA GPU, and the device is {device}; use --device cuda")


def _require_no_conflict(
    precision: Precision, compiler: Compiler, *, compiled: bool, cuda_graph: bool, tf32: bool
) -> None:
    """Refuse an option that would have no effect beside the others."""
    if tf32 and precision != "float32":
        raise UsageError(f"tf32 is a way to compute float32, but the precision is {precision}; leave one of them out")
    if compiler == "tensorrt" and not compiled:
        raise UsageError("the compiler is tensorrt, but compiled is False; set compiled=True, or leave compiler out")
    if cuda_graph and compiled:
        raise UsageError("cuda_graph is for a network that is not compiled; leave cuda_graph or compiled out")


def _with_tensorrt(network: SegmentationNetwork, *, tf32: bool | None) -> Any:
    """The network compiled by torch-tensorrt at its first run, in the precision that its weights have."""
    try:
        import torch_tensorrt  # registers the compiler
    except ImportError as error:
        raise EnvironmentFault(
            f"torch-tensorrt is not installed or cannot be loaded ({error}); install the version for torch "
            f"{torch.__version__}: pip install torch-tensorrt"
        ) from None
    known = {setting.name for setting in dataclasses.fields(torch_tensorrt.dynamo.CompilationSettings)}
    # What cannot be compiled must not run in torch under the name of TensorRT.
    wanted: dict[str, Any] = {"pass_through_build_failures": True, "use_explicit_typing": True}
    # TensorRT has a setting of its own, and rounds unless it is told.
    wanted["disable_tf32"] = tf32 is False
    if "use_explicit_typing" not in known:
        wanted["enabled_precisions"] = {next(network.parameters()).dtype}
    options = {name: value for name, value in wanted.items() if name in known}
    return torch.compile(network, backend="torch_tensorrt", dynamic=False, options=options)


class _StageClock:
    """Seconds between laps, each after the device has finished what it was given."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _no_lap(_: str) -> None:
    """The lap of a run whose stages nobody asked for."""


def open_model(path: Path, *, device: str, threads: int | None, **options: Any) -> OpenedModel:
    """Open a weights file; see `open_backend`, and `TorchBackend` for the options `precision` and others."""
    from etnet.manifest import read_weights_info

    if threads is not None:
        torch.set_num_threads(threads)
    backend = TorchBackend.from_file(path, device=device, **options)
    return OpenedModel(backend, ModelDescription.of_weights(read_weights_info(path)))
