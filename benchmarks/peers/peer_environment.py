"""Make one peer's environment beside the one that runs this file, whose packages it sees behind its own.

    python benchmarks/peers/peer_environment.py ENVIRONMENT REQUIREMENTS

`setup.sh` calls it for each peer. pip is the running environment's own; it sees torch and the like as installed, and is
held to their versions.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import site
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SHARED = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "cv2": "opencv-python-headless"}
"""Modules that both sides have to share, and the distributions that hold them."""

LINK = "zz_shared_environment.pth"
"""Read after the other .pth files; what it adds is searched last."""

LOOK = """
import json
from importlib.metadata import distributions
from importlib.util import find_spec
packages = [[found.metadata["Name"], found.version] for found in distributions() if found.metadata["Name"]]
print(json.dumps([packages, [name for name in ("etnet", "numpy", "torch") if find_spec(name)]]))
"""
"""Tells what an environment has, without importing it."""


class NotMade(Exception):
    """Why there is no environment, in one sentence."""


def make(folder: Path, requirements: Path) -> str:
    """Make or complete the environment.

    Args:
        folder: Of the environment.
        requirements: What is installed into it, with exact versions.

    Returns:
        What was done, in a few words.

    Raises:
        NotMade: A package cannot be had, or pip put in a package that has to be shared.
    """
    # One line that starts with `import` is run; addsitedir follows .pth files, such as etnet's where it is editable.
    link = "; ".join(["import site", *(f"site.addsitedir({path!r})" for path in shared_folders())]) + "\n"
    own = packages_folder(folder)
    python = folder / "bin" / "python"
    if python.exists() and own.is_dir() and (own / LINK).is_file() and (own / LINK).read_text("utf-8") == link:
        if not missing(python, requirements):
            return "is up to date"
    else:
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        (own / LINK).write_text(link, "utf-8")
    install(python, requirements)
    second = sorted(name for name in SHARED if (own / name).exists())
    if second:
        shutil.rmtree(folder)
        raise NotMade(f"pip installed {', '.join(second)} a second time, so the environment was removed")
    lacking = missing(python, requirements)
    if lacking:
        raise NotMade(f"{', '.join(lacking)} cannot be found after the installation")
    return "was installed"


def shared_folders() -> list[str]:
    """Where the running environment's packages are, those of the user too where they count."""
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    # torch may come from elsewhere, such as PYTHONPATH, which the environment inherits by itself.
    return [folder for folder in folders if Path(folder).is_dir()]


def packages_folder(folder: Path) -> Path:
    """`site-packages` of an environment made by this interpreter."""
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def install(python: Path, requirements: Path) -> None:
    """Let pip install, with the versions of what is shared fixed."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in shared_versions()), "utf-8")
        run([*pip, "-c", str(constraints), "-r", str(requirements)])


def shared_versions() -> list[tuple[str, str]]:
    """Distributions that pip must not replace, with the versions that are there."""
    found = []
    for module, name in SHARED.items():
        if importlib.util.find_spec(module) is not None:
            try:
                found.append((name, metadata.version(name)))
            except metadata.PackageNotFoundError:
                continue  # OpenCV of a system, for instance; a second one is noticed afterwards
    return found


def missing(python: Path, requirements: Path) -> list[str]:
    """Requirements that the environment does not meet."""
    packages, modules = json.loads(run([str(python), "-c", LOOK]))
    have: dict[str, str] = {}
    for name, version in packages:
        have.setdefault(canonicalize_name(name), version)  # the first that is found is the one that is imported
    return [name for name in ("etnet", "numpy", "torch") if name not in modules] + [
        str(requirement)
        for requirement in wanted(requirements)
        if not requirement.specifier.contains(have.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ]


def wanted(requirements: Path) -> list[Requirement]:
    """The lines of a requirements file that count for this Python."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines())
    found = [Requirement(line) for line in filter(None, lines)]
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate()]


def run(command: list[str]) -> str:
    """Output of a command.

    Raises:
        NotMade: It fails; with its last line.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise NotMade(lines[-1].removeprefix("ERROR: ") if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout


def main() -> int:
    """Make the environment and say so in one line."""
    folder, requirements = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        print(f"{folder.name} {make(folder, requirements)}")
    except (NotMade, OSError) as error:
        print(f"{folder.name} is left out: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
