"""Import from below only: the layers of the package, checked on the sources without importing them."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

import etnet
import etnet.trt
from etnet.environment.packages import BASE, wanted_packages

PACKAGE = Path(etnet.__file__).resolve().parent
ENGINES = Path(etnet.trt.__file__).resolve().parent
"""`etnet.trt`: a folder of the package when installed from a wheel, the repository's `trt/` when editable."""

LAYERS = {
    1: {
        "errors",
        "types",
        "config",
        "manifest",
        "output",
        "sidecar",
        "onnx_sidecar",
        "native",
        "_native",
        "environment",
    },
    2: {"ops", "ndops"},
    3: {"data", "models", "losses", "metrics"},
    4: {"trt"},
    5: {"inference"},  # above trt: one of its back-ends runs engines
    6: {"training", "export"},  # above inference: both score with the predictor that users get
    7: {"reproduce", "planning"},  # above training: they train and score, or measure its speed
    8: {"cli"},
}
LAYER_OF = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
MAY_IMPORT_SIBLINGS = {1}
OUTSIDE = {"__init__", "__main__"}
"""Entry points: `etnet/__init__.py` loads its public names lazily, `__main__.py` starts the command line."""

WITHOUT_TORCH = [
    "etnet",
    "etnet.cli.main",
    "etnet.config.load",
    "etnet.data.edges",
    "etnet.data.io",
    "etnet.environment.diagnosis",
    "etnet.inference.compare",
    "etnet.inference.backends.onnxruntime_backend",
    "etnet.export.engine",
    "etnet.inference.backends.tensorrt_backend",
    "etnet.inference.bundle",
    "etnet.inference.evaluate_regions",
    "etnet.inference.evaluate",
    "etnet.inference.folder",
    "etnet.inference.folder_report",
    "etnet.inference.inspection",
    "etnet.inference.mask_folder",
    "etnet.inference.predictor",
    "etnet.inference.ray_cluster",
    "etnet.inference.refinement",
    "etnet.inference.report",
    "etnet.inference.two_stage",
    "etnet.manifest",
    "etnet.metrics.overlap",
    "etnet.metrics.report",
    "etnet.native",
    "etnet.ndops",
    "etnet.sidecar",
    "etnet.trt.memory",
    *(f"etnet.trt.{path.stem}" for path in sorted(ENGINES.glob("*.py")) if path.stem != "__init__"),
]


def name_in_package(path: Path) -> Path:
    """`trt/builder.py` and the like, wherever the folder lies."""
    return Path("trt", path.relative_to(ENGINES)) if path.is_relative_to(ENGINES) else path.relative_to(PACKAGE)


def room_of(path: Path) -> str:
    return name_in_package(path).parts[0].removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports_at_run_time(node: ast.AST):
    """(line, module) of every import below `node`, those inside functions included."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.module == "etnet":
                yield from ((child.lineno, f"etnet.{alias.name}") for alias in child.names)
            else:
                yield child.lineno, child.module or ""
        else:
            yield from imports_at_run_time(child)


SOURCES = sorted(
    path
    for path in {file.resolve() for folder in (PACKAGE, ENGINES) for file in folder.rglob("*.py")}
    if room_of(path) not in OUTSIDE
)


def test_the_folder_of_the_engines_is_looked_at_once():
    assert [str(name_in_package(path)) for path in SOURCES].count("trt/__init__.py") == 1


def test_every_file_belongs_to_a_layer():
    assert [str(path) for path in SOURCES if room_of(path) not in LAYER_OF] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(name_in_package(path)))
def test_imports_come_from_layers_below(path):
    room = room_of(path)
    wrong = []
    for line, module in imports_at_run_time(ast.parse(path.read_text())):
        root, *rest = module.split(".")
        if root != "etnet" or not rest or rest[0] in (room, "__version__"):
            continue
        layer, imported = LAYER_OF[room], LAYER_OF.get(rest[0], 99)
        if imported > layer or (imported == layer and layer not in MAY_IMPORT_SIBLINGS):
            wrong.append(f"{path.name}:{line} ({room}, layer {layer}) imports {module} (layer {imported})")
    assert wrong == []


def test_a_violation_would_be_found():
    source = "from etnet.models import ETNet\ndef f():\n    import etnet.cli.main\n    from etnet import ops"
    assert [name for _, name in imports_at_run_time(ast.parse(source))] == [
        "etnet.models",
        "etnet.cli.main",
        "etnet.ops",
    ]
    hidden = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import etnet.models"
    assert [name for _, name in imports_at_run_time(ast.parse(hidden))] == ["typing"]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_deployment_modules_import_without_the_packages_of_any_extra(module):
    absent = dict.fromkeys(package.module for package in wanted_packages() if package.group != BASE)
    assert {"torch", "timm", "nibabel", "ray", "scipy"} <= absent.keys()
    program = f"import sys; sys.modules.update({absent}); import {module}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_only_two_files_take_tensor_addresses():
    users = {str(name_in_package(path)) for path in SOURCES if "data_ptr(" in path.read_text()}
    assert users == {"ops/_launch.py", "trt/memory/torch_memory.py"}


def test_names_that_say_nothing_are_not_used():
    banned = {"utils", "helpers", "common", "manager", "misc"}
    names = itertools.chain.from_iterable(name_in_package(path).with_suffix("").parts for path in SOURCES)
    assert banned.isdisjoint(names)


def test_files_and_functions_stay_readable():
    too_long = []
    for path in SOURCES:
        source = path.read_text()
        if source.count("\n") > 400:
            too_long.append(f"{path.name}: {source.count(chr(10))} lines")
        too_long += [
            f"{path.name}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > 60
        ]
    assert too_long == []
