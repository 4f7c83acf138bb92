"""What README.md, CONTRIBUTING.md and the notes in docs/ tell people to type, open and expect exists and is so."""

from __future__ import annotations

import doctest
import importlib
import json
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
DOCUMENTS = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING, **NOTES}

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
    """What the document names (from the repository's root) or links to (from its own folder) and does not exist."""
    linked = [link for link in re.findall(r"\]\(([^)#]+)\)", document) if "://" not in link]
    named = [code for code in inline_code(document) if re.fullmatch(rf"{PLACES}/?|[A-Z]+\.(md|cff)|LICENSE", code)]
    missing = [place for place in named if not (REPOSITORY / place).exists()]
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


def figures_without_source(text: str, results: Path) -> list[str]:
    """Fractions of three digits or more that no file of results rounds to; lines about the paper are not ours."""
    numbers = [value for file in results.glob("*.json") for value in numbers_in(json.loads(file.read_text("utf-8")))]
    ours = "\n".join(line for line in text.splitlines() if "paper" not in line.lower())
    return [
        figure
        for figure in re.findall(r"\b0\.\d{3,}\b", ours)
        if figure not in {f"{number:.{len(figure) - 2}f}" for number in numbers}
    ]


def numbers_in(content: object) -> list[float]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [number for item in content for number in numbers_in(item)]
    return [float(content)] if isinstance(content, (int, float)) else []


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


def test_figures_of_the_results_come_from_files():
    _, results, _ = re.split(r"<!-- results: (?:begin|end)[^>]*-->", README)
    assert figures_without_source(results, REPOSITORY / "benchmarks" / "results") == []


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


def test_a_figure_without_a_file_would_be_found(tmp_path):
    (tmp_path / "run.json").write_text('{"pooled": {"dice": [0.77512]}}')
    text = "Dice 0.7751, 0.775\nAccuracy 0.9999, 0.776\nThe paper: 0.1234"
    assert figures_without_source(text, tmp_path) == ["0.9999", "0.776"]


def test_a_recipe_key_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="did you mean"):
        load_recipe("drive", ["model.encodr=resnet18"])
