"""Program of the second process: imports modules one after another and reports each on a line of JSON.

    python -c "..." '["/a/path", ...]' torch timm       (etnet.environment.imports writes this line)

A line is written before each import, so that the reader knows which one ended the process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import IO, Any

from etnet import native


def report(modules: Sequence[str]) -> None:
    """Import each module and write `{"started": name}`, then `{"name", "version", "error", "details"}`."""
    # Packages print while they are imported; what they print must not land between our lines.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for name in modules:
            _write(answers, {"started": name})
            _write(answers, _try_import(name))


def _write(answers: IO[str], line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _try_import(name: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"name": name, "version": None, "error": None, "details": {}}
    try:
        module = importlib.import_module(name)
        version = getattr(module, "__version__", None)
        answer["version"] = None if version is None else str(version)
        if name in DETAILS:
            answer["details"] = DETAILS[name](module)
    # SystemExit too: some modules end the program where something they need is missing.
    except (Exception, SystemExit) as error:
        answer["error"] = _one_line(error)
    return answer


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _torch(torch: ModuleType) -> dict[str, Any]:
    available = bool(torch.cuda.is_available())
    return {
        "cuda_build": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if available else [],
        "targets": list(torch.cuda.get_arch_list()) if available else [],
    }


def _onnxruntime(onnxruntime: ModuleType) -> dict[str, Any]:
    return {"providers": list(onnxruntime.get_available_providers())}


def _openvino(openvino: ModuleType) -> dict[str, Any]:
    return {"devices": list(openvino.Core().available_devices)}


def _native(_: ModuleType) -> dict[str, Any]:
    module, reason = native.state()
    build = dict(module.BUILD) if module is not None else {}
    return {"loaded": module is not None, "reason": reason, "build": build, "path": getattr(module, "__file__", None)}


def _cuda_driver(module: ModuleType) -> dict[str, Any]:
    details: dict[str, Any] = module.ask()
    return details


DETAILS: dict[str, Callable[[ModuleType], dict[str, Any]]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "etnet.native": _native,
    "etnet.environment.cuda_driver": _cuda_driver,
}
"""What is asked of a module once it is there."""


def main() -> None:
    """Entry of the second process: the modules' names are its arguments."""
    # A reader that left needs no answer.
    with contextlib.suppress(BrokenPipeError):
        report(sys.argv[2:])
