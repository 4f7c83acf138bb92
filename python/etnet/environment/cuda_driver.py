"""The NVIDIA driver asked directly, through `libcuda`: which GPUs it shows, with torch or without."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PROC = Path("/proc/driver/nvidia/version")
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute in cuda.h
_DRIVER_VERSION = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")


class _DriverRefused(Exception):
    """A call of the driver returned an error."""


def ask() -> dict[str, Any]:
    """What the driver says.

    Returns:
        `reason` (why no GPU can be used, or ""), `driver` (its version or None), `cuda` (newest CUDA version that it
        runs, or None) and `gpus`: `name`, `compute_capability` ("9.0") and `memory_bytes` of each.
    """
    answer: dict[str, Any] = {"reason": "", "driver": driver_version(), "cuda": None, "gpus": []}
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        answer["reason"] = "no NVIDIA driver (libcuda.so.1 is not found)"
        return answer
    try:
        _call(library, "cuInit", 0)
        answer["cuda"] = _cuda_version(library)
        count = ctypes.c_int()
        _call(library, "cuDeviceGetCount", ctypes.byref(count))
        answer["gpus"] = [_gpu(library, index) for index in range(count.value)]
        answer["reason"] = "" if count.value else "the driver shows no GPU"
    except _DriverRefused as refusal:
        answer["reason"] = f"the NVIDIA driver is there but does not work ({refusal})"
    return answer


def driver_version() -> str | None:
    """Version of the NVIDIA driver, such as 580.82.07; None where none can be found."""
    try:
        text = _PROC.read_text()
    except OSError:
        text = _nvidia_smi_version()
    match = _DRIVER_VERSION.search(text)
    return match[1] if match else None


def _nvidia_smi_version() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _cuda_version(library: ctypes.CDLL) -> str:
    version = ctypes.c_int()
    _call(library, "cuDriverGetVersion", ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _gpu(library: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGet", ctypes.byref(device), index)
    _call(library, "cuDeviceGetName", name, len(name), device)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = [
        _attribute(library, device, which) for which in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
    ]
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": "{}.{}".format(*capability),
        "memory_bytes": memory.value,
    }


def _attribute(library: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    _call(library, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(library, function)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode(errors="replace") if text.value else "unknown"
        raise _DriverRefused(f"{function}: error {code}, {reason}")
