"""A page in headless Chromium: what it looks like, and what its DOM is once its scripts have run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """Runs one Chromium per page, with a profile of its own and files as its only source."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder

    def screenshot(self, page: Path, *, width: int, height: int, dark: bool = False) -> Path:
        target = self._folder / f"{page.stem}-{width}{'-dark' if dark else ''}.png"
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        self._run(page, f"--window-size={width},{height}", f"--screenshot={target}", "--hide-scrollbars", *scheme)
        return target

    def dom(self, page: Path) -> str:
        return self._run(page, "--dump-dom").stdout

    def complaints(self, page: Path) -> list[str]:
        """What the page's console says: errors of its scripts, and what its policy refused."""
        result = self._run(page, "--dump-dom", "--enable-logging=stderr", "--log-level=0")
        return [line for line in result.stderr.splitlines() if "CONSOLE" in line]

    def ask(self, page: Path, script: str, *, width: int = 1280) -> Any:
        """The value of a function body that runs beside a loaded page, whose window it has as `page`.

        The page lies in a frame, so that its own policy stays as it is. Loading it took `loaded` milliseconds.
        """
        asking = self._folder / f"asking-{page.stem}.html"
        asking.write_text(
            f'<body><iframe id="frame" style="width:{width}px;height:900px;border:0"></iframe><pre id="answer"></pre>'
            "<script>const frame = document.getElementById('frame'), began = performance.now();"
            "frame.onload = () => { const page = frame.contentWindow, loaded = performance.now() - began;"
            f"const answer = (() => {{ {script} }})();"
            "document.getElementById('answer').textContent = JSON.stringify(answer); };"
            f"frame.src = {json.dumps(page.as_uri())};</script></body>"
        )
        dom = self._run(asking, "--dump-dom", "--allow-file-access-from-files").stdout
        # Texts are compared as the DOM prints them, with the three characters escaped that it escapes.
        text = dom.split('<pre id="answer">')[1].split("</pre>")[0]
        return json.loads(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    def _run(self, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [
                self._program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                f"--user-data-dir={self._folder / 'profile'}",
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result


def find_browser(folder: Path) -> Browser:
    """Skips the test where there is no browser."""
    program = next((path for path in map(shutil.which, NAMES) if path), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on the PATH; install one (apt-get install chromium)")
    return Browser(program, folder)
