from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from etnet.cli.console import closing_lines, counted, infer_or_bundle, note, progress_bar, warn
from etnet.types import RegionOfInterest
from helpers.backends import contract


def test_closing_lines_are_plain_and_never_wrapped_when_copied(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    folder = Path("runs/infer/a folder with a long name [1]")
    closing_lines(folder, "etnet infer images/ --model runs/train/drive --overlay")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"Results: {folder}",
        "Next: etnet infer images/ --model runs/train/drive --overlay",
    ]
    assert captured.err == ""


def test_closing_lines_leave_stdout_to_json(capsys):
    closing_lines(Path("out"), "etnet demo", to_stderr=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Results: out" in captured.err


@pytest.mark.parametrize(("speak", "start"), [(note, "text"), (warn, "Warning: text")])
def test_messages_go_to_stderr_exactly_as_given(capsys, speak, start):
    speak("text [bold]not markup[/bold] " + "x" * 200)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{start} [bold]not markup[/bold] {'x' * 200}\n"


def test_a_bar_is_silent_where_no_one_looks(capsys):
    with progress_bar() as bar:
        task = bar.add_task("Working", total=3)
        bar.advance(task)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_bar_on_a_terminal_goes_to_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar() as bar:
        task = bar.add_task("Working", total=3)
        bar.advance(task)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Working" in captured.err


@pytest.mark.parametrize(("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_of_a_kind_is_singular(number, text):
    assert counted(number, "image") == text


def test_a_network_of_a_region_is_not_offered_for_whole_images():
    whole = contract()
    region = replace(whole, roi=RegionOfInterest(0.3, 64))
    assert infer_or_bundle(Path("my run"), whole) == "etnet infer YOUR_IMAGES --model 'my run' --overlay"
    assert infer_or_bundle(Path("my run"), region) == "etnet bundle LOCALIZER 'my run' --output BUNDLE"
