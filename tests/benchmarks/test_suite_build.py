"""The suite's build: what it finds, what it does without pip or nvcc, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
import zipfile
from argparse import Namespace

import pytest

from etnet import native
from helpers.benchmarks import load_benchmark

build = load_benchmark("suite.build")


def options(tmp_path, **values):
    return Namespace(**{"out": tmp_path, "device": "cpu", "packages": None, "json": tmp_path / "build.json", **values})


def found(architectures: str | None, file=build.ROOT / "python/etnet/__init__.py"):
    facts = {} if architectures is None else {"cuda": "13.0", "cuda_architectures": architectures}
    return build.Found(file, facts, "")


def test_the_installed_product_is_found_as_a_new_process_sees_it():
    seen = build.look()
    assert seen.build == dict(native.require().BUILD)
    assert seen.has(None)


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [("80 90", "90", True), ("80 90", "120", False), ("", None, True), ("", "90", False), (None, None, False)],
)
def test_kernels_serve_the_gpu_that_they_were_built_for(architectures, capability, expected):
    assert found(architectures).has(capability) is expected


def test_an_installation_from_these_sources_is_reused_and_the_result_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build", lambda *_: pytest.fail("it was built again"))
    figures = build.make(options(tmp_path))
    assert figures["how"] == "reused: this environment has the product already"
    build.write(tmp_path / "build.json", figures, options(tmp_path))
    written = json.loads((tmp_path / "build.json").read_text())
    assert (written["benchmark"], written["comparisons"]) == ("build", [])
    assert written["versions"]["torch"]


def test_what_stands_before_the_build_and_lacks_the_kernels_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "capability_of_gpu", lambda: "90")
    monkeypatch.setattr(build, "build", lambda *_: "pip")
    monkeypatch.setattr(build, "look", lambda: found("80"))
    with pytest.raises(build.BuildFailed, match=r"kernels are for 80 and not for 90 .*use an environment without it"):
        build.make(options(tmp_path, device="cuda"))
    monkeypatch.setattr(build, "look", lambda: None)
    with pytest.raises(build.BuildFailed, match="cannot be imported; name the missing packages' wheels"):
        build.make(options(tmp_path, device="cuda"))


@pytest.mark.parametrize(("capability", "device"), [(None, "cpu"), ("90", "cuda")])
def test_a_product_that_is_not_of_these_sources_is_never_measured_in_their_place(
    tmp_path, monkeypatch, capability, device
):
    elsewhere, site = (found("90", tmp_path / name / "etnet" / "__init__.py") for name in ("site-packages", "site"))
    monkeypatch.setattr(build, "capability_of_gpu", lambda: capability)
    monkeypatch.setattr(build, "build", lambda *_: "pip")
    answers = iter([elsewhere, site, elsewhere, elsewhere])
    monkeypatch.setattr(build, "look", lambda: next(answers))
    assert build.make(options(tmp_path, device=device))["how"] == "pip"
    with pytest.raises(build.BuildFailed, match="is imported and not what was built; use an environment without it"):
        build.make(options(tmp_path, device=device))


def test_without_nvcc_the_reason_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("CUDACXX", "")  # so that what is set below ends with this test
    with pytest.raises(build.BuildFailed, match="nvcc was not found"):
        build.build(tmp_path / "site", tmp_path / "scratch", "90")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch()
    monkeypatch.setattr(build, "_build_with_pip", lambda new, scratch, defines: new.mkdir() or json.dumps(defines))
    how = build.build(tmp_path / "site", tmp_path / "scratch", "90")
    assert json.loads(how) == {"ETNET_CUDA": "ON", "ETNET_CUDA_ARCHITECTURES": "90"}
    assert build.os.environ["CUDACXX"] == str(tmp_path / "bin" / "nvcc")


def test_without_a_gpu_the_reason_is_one_sentence(monkeypatch):
    monkeypatch.setattr(build, "CAPABILITY", "raise RuntimeError('no NVIDIA driver')")
    with pytest.raises(build.BuildFailed, match=r"torch sees no GPU \(.*no NVIDIA driver\)"):
        build.capability_of_gpu()


def test_cmake_builds_what_pip_cannot_and_both_reasons_are_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise build.BuildFailed("pip install: No module named pip")

    monkeypatch.setattr(build, "_build_with_pip", refuse)
    monkeypatch.setattr(build, "_build_with_cmake", lambda new, scratch, defines: new.mkdir())
    assert build.build(tmp_path / "site", tmp_path / "scratch", None) == (
        "CMake, because pip could not: pip install: No module named pip"
    )
    assert (tmp_path / "site").is_dir()
    monkeypatch.setattr(build, "_build_with_cmake", refuse)
    with pytest.raises(build.BuildFailed):
        build.build(tmp_path / "site", tmp_path / "scratch", None)
    assert (tmp_path / "site").is_dir(), "what was built before stays until the new one is whole"


@pytest.mark.parametrize("with_pip", [True, False])
def test_wheels_are_installed_beside_the_environment(tmp_path, monkeypatch, with_pip):
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "lacking-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("lacking.py", "VALUE = 1\n")
        archive.writestr("lacking-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lacking\nVersion: 1.0\n")
        archive.writestr(
            "lacking-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("lacking-1.0.dist-info/RECORD", "")
    if not with_pip:
        monkeypatch.setattr(build, "_pip", lambda command: (sys.executable, "-c", "raise ImportError('no pip')"))
        monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert build.install_packages(tmp_path / "wheels", tmp_path / "target") == ["lacking-1.0-py3-none-any.whl"]
    assert (tmp_path / "target" / "lacking.py").read_text() == "VALUE = 1\n"


def test_a_folder_without_wheels_is_one_sentence(tmp_path):
    with pytest.raises(build.BuildFailed, match=r"holds no wheel \(\*\.whl\)"):
        build.install_packages(tmp_path, tmp_path / "target")


def test_a_build_that_failed_has_a_result_too_even_where_nothing_can_be_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "measurement", None)
    build.write(tmp_path / "build.json", {"failed": "nvcc was not found"}, options(tmp_path))
    written = json.loads((tmp_path / "build.json").read_text())
    assert (written["benchmark"], written["failed"]) == ("build", "nvcc was not found")


@pytest.mark.long
@pytest.mark.parametrize("way", ["pip", "cmake"])
def test_both_ways_install_a_product_that_runs(tmp_path, way):
    site = tmp_path / "site"
    if way == "pip":
        assert build.build(site, tmp_path / "scratch", None) == "pip"
    else:
        build._build_with_cmake(site, tmp_path / "scratch", {"ETNET_CUDA": "OFF"})
    (module,) = (site / "etnet").glob("_native*.so")
    # Without the environment's own installation, which would stand before it.
    code = f"import sys; sys.path.insert(0, {str(site)!r}); import importlib.util as u, etnet.trt.driver as d\n"
    code += f"s = u.spec_from_file_location('etnet._native', {str(module)!r}); m = u.module_from_spec(s)\n"
    code += "s.loader.exec_module(m); print(d.__file__, m.INTERFACE)"
    told = build.run(
        sys.executable,
        "-c",
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__module__]\n" + code,
    )
    assert told.split() == [str(site / "etnet" / "trt" / "driver.py"), str(native.INTERFACE)]
