"""Environments of peers: they see the packages of the one that makes them behind their own, and get no second torch."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers.peers import PEERS


def wheel(folder: Path, name: str, module: str, *, needs: str | None = None) -> None:
    """A wheel of version 1.0 with one module, in a folder that pip finds it in."""
    information = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (f"Requires-Dist: {needs}\n" if needs else "")
    files = {
        f"{module}/__init__.py": "VALUE = 7\n",
        f"{information}/METADATA": metadata,
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{information}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def setup(tmp_path):
    """Runs setup.sh with requirements and environments of this test, without a network."""
    for name in ("requirements", "wheels"):
        (tmp_path / name).mkdir()

    def run(*words: str, **requirements: str) -> subprocess.CompletedProcess[str]:
        for peer, lines in requirements.items():
            (tmp_path / "requirements" / f"requirements-{peer}.txt").write_text(lines)
        environment = {
            **os.environ,
            "ETNET_PEER_REQUIREMENTS": str(tmp_path / "requirements"),
            "ETNET_PEER_VENVS": str(tmp_path / "venvs"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(tmp_path / "wheels"),
            "PYTHON": sys.executable,
        }
        return subprocess.run(
            ["bash", str(PEERS / "setup.sh"), *words], capture_output=True, text=True, env=environment, check=False
        )

    return run


def answer(tmp_path: Path, peer: str, program: str) -> str:
    """What a program prints in a peer's environment."""
    python = tmp_path / "venvs" / peer / "bin" / "python"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_peer_sees_its_own_packages_and_the_torch_and_etnet_of_the_environment_that_made_it(setup, tmp_path):
    wheel(tmp_path / "wheels", "somepeer", "somepeer")
    done = setup(some="somepeer==1.0\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "some was installed\n", "")
    program = (
        "import importlib.util as u; print(*(u.find_spec(name).origin for name in ('somepeer', 'torch', 'etnet')))"
    )
    own, *shared = answer(tmp_path, "some", program).split()
    assert own.startswith(str(tmp_path / "venvs"))
    command = [sys.executable, "-c", program.replace("'somepeer', ", "")]
    here = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shared == here.stdout.split()
    assert setup().stdout == "some is up to date\n"


def test_a_peer_without_requirements_has_what_is_shared(setup, tmp_path):
    done = setup("plain", plain="# nothing\n", other="somepeer==1.0\n")
    assert (done.returncode, done.stdout) == (0, "plain was installed\n")
    assert answer(tmp_path, "plain", "import numpy; print('there')") == "there"
    assert not (tmp_path / "venvs" / "other").exists()


def test_a_peer_that_cannot_be_had_is_said_in_one_line_and_does_not_stop_the_others(setup, tmp_path):
    done = setup(absent="nowhere==1.0\n", plain="")
    assert done.returncode == 1
    assert done.stdout == "plain was installed\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("absent is left out: ")
    assert "nowhere" in line
    wheel(tmp_path / "wheels", "nowhere", "nowhere")
    assert setup().stdout == "absent was installed\nplain is up to date\n"


def test_a_second_torch_is_refused(setup, tmp_path):
    wheel(tmp_path / "wheels", "bringstorch", "torch")
    done = setup(greedy="bringstorch==1.0\n")
    assert done.returncode == 1
    assert done.stderr == ("greedy is left out: pip installed torch a second time, so the environment was removed\n")
    assert not (tmp_path / "venvs" / "greedy").exists()


def test_a_peer_that_wants_another_numpy_is_refused(setup, tmp_path):
    wheel(tmp_path / "wheels", "oldpeer", "oldpeer", needs="numpy==1.0")
    done = setup(old="oldpeer==1.0\n")
    assert done.returncode == 1
    assert done.stderr.startswith("old is left out: ")


def test_a_changed_version_is_installed(setup, tmp_path):
    wheel(tmp_path / "wheels", "somepeer", "somepeer")
    setup(some="")
    assert setup(some="somepeer==1.0\n").stdout == "some was installed\n"
    assert answer(tmp_path, "some", "import somepeer; print(somepeer.VALUE)") == "7"


@pytest.mark.parametrize(
    ("words", "said"), [(("nobody",), "there is no peer nobody"), (("--unknown",), "there is no option --unknown")]
)
def test_wrong_words_are_refused(setup, words, said):
    done = setup(*words, plain="")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_python_without_torch_is_refused_with_what_to_do(setup, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    done = setup("--python", str(tmp_path / "bare" / "bin" / "python"), plain="")
    assert done.returncode == 4
    assert "make venv" in done.stderr
