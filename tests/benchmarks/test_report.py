"""The report: what it shows of result files, which files it takes, and whether the documents are up to date."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest

from helpers.benchmarks import BENCHMARKS, load_benchmark

measurement = load_benchmark("measurement")
report = load_benchmark("report")
results = load_benchmark("reporting.results")
highlights = load_benchmark("reporting.highlights")
document = load_benchmark("reporting.document")


def row(ours: float, theirs: float, *, subject="training step with its data path", **changed) -> measurement.Comparison:
    described = {"case": "4 crops", "unit": "images/s", "better": "higher", "result": "the same network", **changed}
    return measurement.Comparison.of_rounds(
        ("etnet, float32", [ours]), ("plain script", [theirs]), version="0.29.1+cu130", subject=subject, **described
    )


def write(folder: Path, *rows, kind="peers_x", name="out.json", targets=(), **figures) -> Path:
    """A result as the benchmarks write it; `figures` also replaces what they say of machine and date."""
    path = folder / name
    measurement.write_result(path, benchmark=kind, what="a test", figures=figures, comparisons=rows, targets=targets)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository without results."""
    (tmp_path / "README.md").write_text(f"# Product\n\n{highlights.BEGIN}\n{highlights.END}\n\nMore.\n", "utf-8")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    return tmp_path


def rendered(root: Path) -> str:
    assert report.main(["--root", str(root)]) == 0
    return (root / "benchmarks" / "RESULTS.md").read_text("utf-8")


def part(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level."""
    level = heading.split(maxsplit=1)[0]
    return re.split(rf"^{level} ", text.split(f"{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


MACHINE = {"processor": "Quick 9", "cores": 4}


def test_the_documents_of_the_repository_are_up_to_date(capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_check_writes_nothing_and_fails_where_a_document_is_old(root, capsys):
    assert report.main(["--root", str(root), "--check"]) == 1
    assert not (root / "benchmarks" / "RESULTS.md").exists()
    rendered(root)
    assert report.main(["--root", str(root), "--check"]) == 0
    capsys.readouterr()
    write(root / "benchmarks" / "results", row(2.0, 1.0), kind="train_step", results={})
    assert report.main(["--root", str(root), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "benchmarks/RESULTS.md is not up to date",
        "README.md is not up to date",
    ]


def test_every_row_that_is_behind_stands_at_the_top_the_worst_first(root):
    rows = [row(9.0, 10.0, case="one"), row(10.0, 10.0, case="two"), row(1.0, 2.0, case="three")]
    write(root / "benchmarks" / "results", *rows, kind="peers_smp", machine=MACHINE, gpus=[])
    text = part(rendered(root), "## Where the other side is better")
    assert "On Quick 9, 4 cores:" in text
    lines = [line for line in text.splitlines() if "training step" in line]
    assert ["0.500x" in lines[0], "0.900x" in lines[1]] == [True, True]
    assert "1.00 images/s, etnet, float32" in lines[0]
    assert "2.00 images/s, plain script (0.29.1)" in lines[0]
    assert "two" not in text


def test_what_all_rows_share_stands_above_and_long_words_on_results_below(root):
    far = "losses that differ by less than anybody would see in a table as wide as this"
    same = [row(3.0, 2.0, case="same crops", result=text) for text in ("equal", far, far)]
    other = [row(3.0, 2.0, case=case, subject="prediction") for case in ("one", "two")]
    write(root / "benchmarks" / "results", *same, *other, kind="peers_smp", machine=MACHINE, gpus=[])
    text = part(rendered(root), "## Quick 9, 4 cores")
    assert "**training step with its data path**, same crops (one round)" in text
    assert text.count("same crops") == 1
    assert re.findall(r"\((\d)\) +\|$", text, flags=re.MULTILINE) == ["1", "2", "2"]
    assert f"1. equal\n2. {far}" in text
    assert "**prediction**; results: the same network (one round)" in text


def test_missed_targets_are_listed_and_met_ones_are_not(root):
    aims = [measurement.Target(name, 2.0, value) for name, value in (("a", 1.0), ("b", 3.0), ("c", None))]
    rows = [row(3.0, 2.0, case="near", target=1.6), row(4.0, 2.0, case="far", target=1.6)]
    write(root / "benchmarks" / "results", *rows, kind="peers_smp", targets=aims)
    text = part(rendered(root), "## Targets that are missed")
    assert "near" in text
    assert "1.6x missed" in text
    assert "far" not in text
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("- ")] == ["- a: 1.00"]


def test_every_result_names_machine_threads_date_commit_and_versions(root):
    write(
        root / "benchmarks" / "results",
        row(3.0, 2.0),
        kind="peers_smp",
        machine={"processor": "Quick 9", "cores": 1},
        gpus=[],
        threads=2,
        date="2026-01-02",
        commit="abc1234",
        versions={"torch": "9.1+cpu", "nothing": None},
    )
    text = part(rendered(root), "## Quick 9, 1 core")
    assert "Quick 9, 1 core; 2 threads; 2026-01-02; commit abc1234." in text
    assert "Versions: torch 9.1." in text
    assert "A test." in text
    assert "1.50x" in text


def test_a_gpu_is_a_machine_of_its_own_and_only_its_absence_is_said_without_one(root):
    folder = root / "benchmarks" / "results"
    gpus = [{"name": "Fast X", "index": 0}]
    write(folder, row(2.0, 1.0), kind="peers_smp", machine=MACHINE, gpus=gpus, device="cpu", name="cpu.json")
    text = rendered(root)
    assert "Nothing was measured on a GPU." in text
    assert "Fast X" not in text
    write(folder, row(3.0, 1.0), kind="peers_smp", machine=MACHINE, gpus=gpus, device="cuda", name="gpu.json")
    text = rendered(root)
    assert "3.00x" in part(text, "## Fast X (Quick 9, 4 cores)")
    assert "2.00x" in part(text, "## Quick 9, 4 cores")
    assert "On a GPU: Fast X." in text


def test_the_newest_file_of_a_kind_subject_and_machine_counts(root):
    folder = root / "benchmarks" / "results"
    for name, ratio, kept in (
        ("b_old", 7.0, {"date": "2026-01-01"}),
        ("a_new", 3.0, {"date": "2026-02-01"}),
        ("other_machine", 4.0, {"date": "2025-01-01", "machine": {"processor": "Slow", "cores": 1}}),
        ("other_variant", 5.0, {"date": "2025-01-01", "variant": "small"}),
    ):
        write(
            folder, row(ratio, 1.0), kind="peers_smp", name=f"{name}.json", **{"machine": MACHINE, "gpus": [], **kept}
        )
    text = rendered(root)
    assert [f"{ratio}.00x" in text for ratio in (3, 4, 5, 7)] == [True, True, True, False]


def test_what_has_no_figures_is_said_without_any(root):
    text = part(rendered(root), "## Not measured")
    assert "Nothing was measured on a GPU." in text
    assert "Training step" in text
    assert not re.search(r"\d", text)


def test_added_files_get_standard_names_and_others_stay(root, tmp_path, capsys):
    source, folder = tmp_path / "in", root / "benchmarks" / "results"
    write(folder, row(2.0, 1.0), kind="ops", name="kept.json", date="2020-01-01", machine=MACHINE, gpus=[])
    known = {"machine": MACHINE, "gpus": [], "date": "2026-03-04"}
    write(source, row(2.0, 1.0), kind="ops", name="one.json", **known)
    write(source, row(3.0, 1.0), kind="train_step", name="two.json", variant="drive_small", results={}, **known)
    write(source, row(3.0, 1.0), kind="peers_smp", name="tiny.json", smoke=True, **known)
    (source / "suite.json").write_text('{"steps": {}}', "utf-8")
    (source / "notes.json").write_text('{"benchmark": "ops"}', "utf-8")
    (source / "broken.json").write_text("{", "utf-8")
    assert report.main(["--root", str(root), "--add", str(source)]) == 3
    assert sorted(path.name for path in folder.iterdir()) == [
        "kept.json",
        "ops_quick-9-4-cores_2026-03-04.json",
        "train_step_drive_small_quick-9-4-cores_2026-03-04.json",
    ]
    refused = capsys.readouterr().err
    assert [word in refused for word in ("tiny", "notes", "broken", "suite")] == [True, True, True, False]
    assert "has no what, date, machine, versions, comparisons" in refused
    assert (root / "benchmarks" / "RESULTS.md").exists(), "the others are reported all the same"


@pytest.mark.parametrize("words", [["--add", "nothing"], ["--add", ".", "--check"]])
def test_what_cannot_be_added_is_refused_before_anything_is_written(root, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        report.main(["--root", str(root), *words])
    assert "--add" in capsys.readouterr().err
    assert not (root / "benchmarks" / "RESULTS.md").exists()


def test_a_file_in_the_folder_of_results_that_is_none_ends_the_report(root, capsys):
    (root / "benchmarks" / "results" / "x.json").write_text("[]", "utf-8")
    assert report.main(["--root", str(root)]) == 3
    assert "x.json: is no result of a benchmark" in capsys.readouterr().err


def test_the_readme_gets_the_lowest_ratio_of_a_kind_and_how_many_rows_are_behind(root):
    sides = (("resnet50, one", 3.0, 1.0), ("resnet50, two", 8.0, 4.0), ("resnet18", 3.0, 2.0))
    rows = [row(ours, theirs, case=case) for case, ours, theirs in sides]
    rows.append(row(1.0, 2.0, subject="else"))
    write(
        root / "benchmarks" / "results",
        *rows,
        kind="train_step",
        machine=MACHINE,
        gpus=[],
        date="2026-05-06",
        results={},
    )
    rendered(root)
    readme = (root / "README.md").read_text("utf-8")
    assert readme.startswith("# Product\n\n")
    assert readme.endswith(f"{highlights.END}\n\nMore.\n")
    lines = [line for line in readme.splitlines() if "training step" in line]
    theirs = "images/s, plain script (0.29.1)"
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines] == [
        ["training step and data path, ResNet-50", "8.00 images/s, float32", f"4.00 {theirs}", "2.00x"],
        ["training step and data path, ResNet-18", "3.00 images/s, float32", f"2.00 {theirs}", "1.50x"],
    ]
    assert "Quick 9, 4 cores, 2026-05-06:" in readme
    assert "Of all 4 rows in [RESULTS.md](benchmarks/RESULTS.md), the other side is better in 1" in " ".join(
        readme.split()
    )


def test_a_readme_without_its_region_is_refused(root, capsys):
    (root / "README.md").write_text("# Product\n", "utf-8")
    assert report.main(["--root", str(root)]) == 3
    assert "has 0 regions" in capsys.readouterr().err


def test_a_benchmark_that_failed_says_so_and_needs_no_figures(root):
    write(root / "benchmarks" / "results", kind="inference", failed="no memory")
    assert "Failed: no memory" in rendered(root)


def test_every_highlight_is_of_a_kind_that_is_reported():
    kinds = load_benchmark("reporting.speed").TITLES
    assert [highlight.kind for highlight in highlights.HIGHLIGHTS if highlight.kind not in kinds] == []


def test_trainings_of_the_suite_are_shown_and_those_without_time_say_why(root):
    pooled = {"accuracy": 0.9, "mean_iou": 0.8, "classes": {"background": {"dice": 0.95}, "vessel": {"dice": 0.71234}}}
    done = {"status": "done", "data": "DRIVE", "epochs": 3, "steps": 9, "test_images": 20, "images_per_second": 4.5}
    sets = {
        "drive": {**done, "scores": {"field_of_view": pooled}, "commands": ["etnet train"]},
        "montgomery": {"status": "no time", "reason": "300 s are left"},
    }
    write(root / "benchmarks" / "results", kind="accuracy", data_sets=sets)
    text = part(rendered(root), "## Accuracy")
    assert re.search(r"\| field of view, pixels pooled +\| +0\.9000 +\| +0\.8000 +\| +0\.7123 +\|", text)
    assert "**montgomery**: no time, 300 s are left." in text


def test_every_kind_of_the_scripts_has_a_place():
    written = {
        kind
        for path in BENCHMARKS.rglob("*.py")
        if ".venvs" not in path.parts
        for kind in re.findall(r'benchmark="(\w+)"', path.read_text("utf-8"))
    }
    assert written
    places = {*load_benchmark("reporting.speed").TITLES, *load_benchmark("reporting.accuracy").TITLES}
    assert written - places == set()


DOCUMENTED = ("compare", "measurement", "reporting.accuracy", "reporting.markdown", "reporting.results", "suite.steps")


@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_in_docstrings_give_what_they_say(module):
    found = doctest.testmod(load_benchmark(module))
    assert (found.attempted > 0, found.failed) == (True, 0)


def test_tables_are_aligned_in_plain_text():
    table = load_benchmark("reporting.markdown").table(["a", "ratio"], [["long cell", "1.0x"]], numbers=("ratio",))
    lines = table.splitlines()
    assert lines == ["| a         | ratio |", "| --------- | ----: |", "| long cell |  1.0x |"]


def test_results_of_the_repository_are_those_of_the_contract():
    for path in sorted((BENCHMARKS / "results").glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        assert results.Result(content).identity
        assert {"benchmark", "what", "date", "machine", "versions", "comparisons"} <= content.keys(), path.name
