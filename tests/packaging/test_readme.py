"""What README.md, CONTRIBUTING.md and the other notes tell people to type, open and expect exists and is so."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from etnet import errors
from etnet.cli.main import COMMANDS, main
from etnet.config.load import load_recipe
from etnet.errors import EtnetError, UsageError
from helpers.runs import tiny_recipe, tiny_run, write_disc_folder

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")
NOTES = {f"docs/{path.name}": path.read_text("utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md"))}
BENCHMARKS = (REPOSITORY / "benchmarks" / "README.md").read_text("utf-8")
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, "benchmarks/README.md": BENCHMARKS, **NOTES}
RESULTS = (REPOSITORY / "benchmarks" / "RESULTS.md").read_text("utf-8")

PLACES = r"(?:python|csrc|tests|benchmarks|docs|examples|\.ci)/[\w./-]*\w"
OPTIONAL = {"tensorboard"}
"""Entries of a run folder that depend on what is installed."""


@dataclass(frozen=True)
class Block:
    """A fenced block of Markdown."""

    language: str
    text: str


def blocks(document: str, language: str) -> list[Block]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)
    return [Block(kind, text) for kind, text in fenced if kind == language]


def command_lines(document: str) -> list[list[str]]:
    """Words of every line that can be typed, continued lines joined and comments left out."""
    lines = "".join(block.text for block in blocks(document, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def etnet_lines(document: str) -> list[list[str]]:
    """Words after `etnet`, also where another program starts it by `-m etnet`."""
    lines = command_lines(document)
    started = [words[words.index("-m") + 1 :] for words in lines if "-m" in words]
    return [words[1:] for words in [*lines, *started] if words[0] == "etnet"]


def inline_code(document: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", document, flags=re.MULTILINE | re.DOTALL))


def etnet_problem(words: list[str], recipes: dict[str, str], folder: Path) -> str | None:
    """Why Click or the recipe schema would refuse a command, found without running it."""
    name, *arguments = words
    if name.startswith("-"):
        known = {option for parameter in main.params for option in parameter.opts} | {"--help"}
        return None if name in known else f"no option {name}"
    if name not in COMMANDS:
        return f"no command {name}"
    command = main.get_command(click.Context(main), name)
    try:
        values = command.make_context(name, list(arguments), parent=click.Context(main)).params
        source = values.get("recipe_source")
        if source in recipes:
            source = folder / source
            source.write_text(recipes[values["recipe_source"]], "utf-8")
        if source is not None:
            load_recipe(source, values.get("overrides", ()))
    except click.ClickException as error:
        return error.format_message()
    except EtnetError as error:
        return str(error)
    return None


def written_recipes(document: str) -> dict[str, str]:
    """Recipes shown in the document by the file name in their first line, and those that `etnet plan` writes there."""
    texts = [block.text for block in blocks(document, "yaml")]
    planned = [f"{Path(words[1]).name}.yaml" for words in etnet_lines(document) if words[0] == "plan"]
    return dict.fromkeys(planned, "name: planned\n") | {text.splitlines()[0].removeprefix("# "): text for text in texts}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, flags=re.MULTILINE))


def mentioned_targets(document: str) -> set[str]:
    typed = [words[1] for words in command_lines(document) if words[0] == "make"]
    return {*typed, *(code.split()[1] for code in inline_code(document) if re.fullmatch(r"make [a-z-]+.*", code))}


def missing_places(document: str, *, folder: Path = REPOSITORY) -> list[str]:
    """What the document names (from the repository's root or its own folder) or links to and does not exist."""
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", document) if "://" not in link]
    named = [code for code in inline_code(document) if re.fullmatch(rf"{PLACES}/?|[A-Z]+\.(md|cff)|LICENSE", code)]
    missing = [place for place in named if not (REPOSITORY / place).exists() and not (folder / place).exists()]
    return missing + [link for link in linked if not (folder / link).exists()]


def missing_names(document: str) -> list[str]:
    """Dotted names below `etnet` that cannot be imported."""
    names = [code for code in inline_code(document) if re.fullmatch(r"etnet(\.\w+)+", code)]
    return [name for name in names if not can_import(name)]


def can_import(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(module) and can_import(module) and hasattr(importlib.import_module(module), attribute)
    return True


def tree(document: str, root: str) -> set[str]:
    """Paths in the drawn folder whose first line is `root`."""
    (drawing,) = (block.text for block in blocks(document, "text") if block.text.startswith(f"{root}\n"))
    paths, parents = set(), []
    for line in drawing.splitlines()[1:]:
        branch, name = re.match(r"^([│ ]*[├└]── )(\S+)", line).groups()
        parents[len(branch) // 4 - 1 :] = [name.rstrip("/")]
        paths.add("/".join(parents))
    return paths


def entries(folder: Path, *, depth: int) -> set[str]:
    """Visible files and folders down to a depth."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {path.as_posix() for path in found if len(path.parts) <= depth and not path.name.startswith(".")}


FIGURES = re.compile(
    r"""
    (?<![\w.]) (
        \d+(?:\.\d+)? [ ] (?:ms|MiB|(?:images|samples)/s) (?![\w/])  # times, memory and speeds
      | \d+\.\d+x (?!\w)                                          # ratios
      | \d{2,}x (?!\w)
      | 0\.\d{3,} (?![\w.])                                       # scores and errors
      | \d+(?:\.\d+)? (?: [ ]and[ ]\d+ )? [ ] minutes (?!\w)       # of trainings
    )
    """,
    re.VERBOSE,
)
"""What is measured, as it is written; whole numbers without such a unit are counts and settings."""

SETTINGS = {
    "0.0005": "the paper's weight decay, in the table of the model",
    "0.005": "the paper's learning rate, there",
    "0.999": "beta2 of Adam, there",
    "0.0001": "a bound that a test holds, in the notes on several processes",
}
"""Figures of the documents that are chosen, not measured."""


def measured_figures(text: str) -> list[str]:
    """Figures of our own in running text and tables; code is typed, and lines that name the paper give its figures."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    ours = "\n".join(line for line in text.splitlines() if "paper" not in line.lower())
    found = []
    for figure in FIGURES.findall(ours):
        numbers = re.findall(r"\d+(?:\.\d+)?", figure)
        found += [f"{number} minutes" for number in numbers] if figure.endswith("minutes") else [figure]
    return found


def figures_without_source(text: str, results: str) -> list[str]:
    """Measured figures of a document that its source does not have, written the same way."""
    known = {*measured_figures(re.sub("paper", "", results)), *SETTINGS}
    return [figure for figure in measured_figures(text) if figure not in known]


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory):
    """A folder in which the commands of the README were run, on a tiny data set."""
    folder = tmp_path_factory.mktemp("user")
    data = write_disc_folder(folder / "data")
    write_disc_folder(data / "test", count=3, seed=1)
    run = folder / "runs" / "train" / "drive"
    tiny_run(tiny_recipe("training.epochs=1"), data, run)
    all_outputs = ["--overlay", "--save-edges", "--save-probabilities", "npz"]
    for words in (["evaluate", run, "--data", data], ["infer", data / "images", "--model", run, *all_outputs]):
        output = folder / "runs" / words[0] / ("drive" if words[0] == "evaluate" else "images")
        result = CliRunner().invoke(main, [*map(str, words), "--output", str(output), "--device", "cpu"])
        assert result.exit_code == 0, result.output
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (58, 41, 3), dtype=np.uint8)).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_etnet_command_has_existing_options_and_recipe_keys(document, tmp_path):
    text = DOCUMENTS[document]
    problems = [etnet_problem(words, written_recipes(text), tmp_path) for words in etnet_lines(text)]
    assert [problem for problem in problems if problem] == []


def test_the_readme_shows_every_command_for_daily_use():
    shown = {words[0] for words in etnet_lines(README)}
    assert shown >= set(COMMANDS) - {"demo"}
    assert "make demo" in README


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_running_text_exist(document):
    named = [shlex.split(code)[1] for code in inline_code(DOCUMENTS[document]) if code.startswith("etnet ")]
    assert [name for name in named if name not in COMMANDS and not name.startswith("-")] == []


@pytest.mark.parametrize("document", sorted(set(DOCUMENTS) - set(NOTES)))
def test_every_make_target_exists(document):
    mentioned = mentioned_targets(DOCUMENTS[document])
    assert mentioned
    assert mentioned - make_targets() == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_name_exists(document):
    assert missing_places(DOCUMENTS[document], folder=(REPOSITORY / document).parent) == []
    assert missing_names(DOCUMENTS[document]) == []


def test_recipe_keys_in_running_text_exist():
    text = "".join(DOCUMENTS.values())
    keys = {
        code.split(":")[0] for code in inline_code(text) if re.match(r"(data|model|training|loss|optimizer)\.\w+", code)
    }
    schema = tiny_recipe()
    assert keys
    assert [key for key in keys if not hasattr(getattr(schema, key.split(".")[0]), key.split(".")[1])] == []


@pytest.mark.parametrize(
    ("root", "depth"), [("runs/train/drive/", 2), ("runs/evaluate/drive/", 1), ("runs/infer/images/", 1)]
)
def test_the_drawn_folders_hold_what_the_commands_write(user_folder, root, depth):
    written = entries(user_folder / root, depth=depth)
    written = {path for path in written if path.split("/")[0] not in OPTIONAL}
    assert tree(README, root) - OPTIONAL == written


def test_python_examples_give_what_they_say(user_folder, monkeypatch):
    monkeypatch.chdir(user_folder)
    source = "".join(block.text for block in blocks(README, "python"))
    example = doctest.DocTestParser().get_doctest(source, {}, "README", "README.md", 0)
    assert example.examples
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def test_exit_codes_are_those_of_the_errors():
    table = set(map(int, re.findall(r"^\| (\d) \|", README, flags=re.MULTILINE)))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EtnetError)]
    assert table == {0} | {kind.exit_code for kind in kinds if kind is not EtnetError}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_measured_figure_is_one_of_the_results(document):
    assert figures_without_source(DOCUMENTS[document], RESULTS) == []


def test_there_are_figures_to_look_up_and_every_exception_is_needed():
    assert len(measured_figures(README)) > 20
    assert len(measured_figures(NOTES["docs/beyond_the_paper.md"])) > 20
    everywhere = {figure for text in DOCUMENTS.values() for figure in measured_figures(text)}
    assert set(SETTINGS) - everywhere == set()


BROKEN = """
```sh
make dmeo
etnet trian --data X
etnet train --recipe drive --data X --epoch 2
etnet train --recipe drive --data X --set data.crop=64
etnet train --recipe mine.yaml --data X
etnet infer
etnet --hlep
torchrun --nproc-per-node 2 -m etnet trian
```
```yaml
# mine.yaml
modell: {}
```
See `make tset`, `tests/nothing.py`, [the notes](NOTES.md), `etnet.models.UNet` and `etnet.nowhere.x`.
"""


def test_each_kind_of_mistake_would_be_found(tmp_path):
    lines = etnet_lines(BROKEN)
    assert len(lines) == 7
    assert all(etnet_problem(words, written_recipes(BROKEN), tmp_path) for words in lines)
    assert mentioned_targets(BROKEN) - make_targets() == {"dmeo", "tset"}
    assert missing_places(BROKEN) == ["tests/nothing.py", "NOTES.md"]
    assert missing_names(BROKEN) == ["etnet.models.UNet", "etnet.nowhere.x"]


def test_a_figure_that_is_not_in_the_results_would_be_found():
    results = (
        "| Dice 0.7751 | 44.8 ms | 1.25 images/s | 22.8x | 519 samples/s | 64.0 MiB |\nTraining: 37 minutes, 5 minutes."
    )
    assert figures_without_source(results, results) == []
    wrong = (
        "Dice 0.7751 but 0.775, 44.9 ms, 1.25 samples/s, 22.9x, 120x and 64 MiB in 37 and 6 minutes,\n"
        "for 256x256 pixels, 512 images, version 0.1.2, `0.9999`, 4x and 17 msec;\nthe paper: 0.1234\n"
        "```sh\netnet --set a=0.4321\n```\n"
    )
    assert figures_without_source(wrong, results) == [
        *("0.775", "44.9 ms", "1.25 samples/s", "22.9x", "120x", "64 MiB", "6 minutes")
    ]


def test_a_recipe_key_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="did you mean"):
        load_recipe("drive", ["model.encodr=resnet18"])
