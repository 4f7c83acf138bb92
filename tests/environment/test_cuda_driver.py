"""The driver is asked through a `libcuda.so.1` that is compiled here and answers as the real one does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from etnet.environment import cuda_driver

FAKE_DRIVER = """
#include <stddef.h>
#include <stdio.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT_CODE; }
int cuDriverGetVersion(int* version) { *version = 12080; return 0; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) { snprintf(name, length, "NVIDIA Test %d", device); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 150000000000u + device; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1;
    return device >= 40 ? 0 : 101;
}
int cuGetErrorString(int code, const char** text) {
    *text = code == 999 ? "unknown error" : NULL;
    return code == 999 ? 0 : 1;
}
"""
ASK = "import json; from etnet.environment.cuda_driver import ask; print(json.dumps(ask()))"


def ask_fake(tmp_path, *, count: int = 1, init_code: int = 0) -> dict:
    import json

    compiler = shutil.which("cc") or pytest.skip("no C compiler, which builds the library that is asked")
    source = tmp_path / "driver.c"
    source.write_text(FAKE_DRIVER)
    library = tmp_path / "libcuda.so.1"
    defines = [f"-DCOUNT={count}", f"-DINIT_CODE={init_code}"]
    subprocess.run([compiler, "-shared", "-fPIC", *defines, "-o", library, source], check=True)
    result = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def test_every_gpu_is_described(tmp_path):
    answer = ask_fake(tmp_path, count=2)
    assert answer["reason"] == ""
    assert answer["cuda"] == "12.8"
    assert answer["gpus"] == [
        {"name": f"NVIDIA Test {40 + index}", "compute_capability": "9.1", "memory_bytes": 150_000_000_040 + index}
        for index in range(2)
    ]


def test_a_driver_without_a_gpu_says_so(tmp_path):
    answer = ask_fake(tmp_path, count=0)
    assert (answer["gpus"], answer["reason"]) == ([], "the driver shows no GPU")


@pytest.mark.parametrize(("code", "text"), [(999, "unknown error"), (803, "unknown")])
def test_a_driver_that_refuses_is_quoted(tmp_path, code, text):
    answer = ask_fake(tmp_path, init_code=code)
    assert answer["gpus"] == []
    assert answer["reason"] == f"the NVIDIA driver is there but does not work (cuInit: error {code}, {text})"


def test_a_machine_without_a_driver_is_no_error(monkeypatch):
    def refuse(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", refuse)
    assert cuda_driver.ask()["reason"] == "no NVIDIA driver (libcuda.so.1 is not found)"


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 2025\nGCC version:  gcc 12.2.0",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build  (dvs-builder)",
        "580.82.07\n580.82.07\n",
    ],
    ids=["closed module", "open module", "nvidia-smi"],
)
def test_the_drivers_version_is_found_in_each_of_its_texts(text, tmp_path, monkeypatch):
    file = tmp_path / "version"
    file.write_text(text)
    monkeypatch.setattr(cuda_driver, "_PROC", file)
    assert cuda_driver.driver_version() == "580.82.07"


def test_the_version_comes_from_nvidia_smi_where_the_kernel_does_not_tell(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.133.20\n")
    program.chmod(0o755)
    monkeypatch.setattr(cuda_driver, "_PROC", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cuda_driver.driver_version() == "570.133.20"
    program.unlink()
    assert cuda_driver.driver_version() is None
