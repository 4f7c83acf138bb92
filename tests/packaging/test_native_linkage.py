"""The native module is built without torch and must run beside any torch: it links the C++ runtime and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from etnet import native

ALLOWED = r"(libstdc\+\+|libgcc_s|libm|libc|libpthread|ld-linux[\w-]*)\.so\.\d+"


@pytest.fixture(scope="module")
def dynamic_section():
    if shutil.which("readelf") is None:
        pytest.skip("readelf (package binutils) is not installed")
    command = ["readelf", "--dynamic", "--wide", native.require().__file__]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_links_neither_libtorch_nor_libgomp_nor_anything_else(dynamic_section):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic_section)
    assert needed
    assert [name for name in needed if not re.fullmatch(ALLOWED, name)] == []


def test_has_no_search_path_of_the_build_machine(dynamic_section):
    assert "RUNPATH" not in dynamic_section
    assert "RPATH" not in dynamic_section


def test_loads_and_runs_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from etnet import native\n"
        "kernels = native.require()\n"
        "sizes = kernels.LovaszSoftmaxSizes(images=1, channels=2, height=3, width=4, per_image=False, "
        "channels_last=False, with_gradient=True, method='sort', bins=2, threads=1)\n"
        "print(kernels.lovasz_softmax_workspace_bytes(sizes))"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(result.stdout) > 0


def test_build_names_its_compilers():
    build = native.require().BUILD
    assert set(build) == {"compiler", "cuda", "cuda_architectures"}
    assert build["compiler"]
    assert bool(build["cuda"]) == bool(build["cuda_architectures"]) == native.has_cuda()
    assert hasattr(native.require(), "lovasz_softmax_cuda") == native.has_cuda()
