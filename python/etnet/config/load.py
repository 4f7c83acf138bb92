"""Read a recipe from its YAML file or built-in name, apply `section.key=value` overrides, and name every mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from etnet.config.schema import Recipe
from etnet.errors import UsageError


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a recipe must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    problem=f"line {line} repeats the key {key!r}; keep one of the two"
                )
        return super().construct_mapping(node, deep)


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with etnet, sorted.

    >>> "drive" in builtin_recipes()
    True
    """
    folder = resources.files("etnet.config") / "recipes"
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        source: A built-in name (`builtin_recipes`) or the path of a YAML file.
        overrides: `section.key=value` strings; the value is read as YAML, later ones win.

    Returns:
        The checked recipe.

    Raises:
        UsageError: The recipe is not found, is not YAML, or holds an unknown key or a value that does not fit.
    """
    text, origin = _read_source(source)
    return recipe_from_values(apply_overrides(_parse_yaml(text, origin), overrides), origin)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set `section.key=value` strings in a recipe's nested dictionaries and return them.

    Raises:
        UsageError: A string is not of that form.
    """
    for override in overrides:
        _apply_override(values, override)
    return values


def recipe_from_values(values: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe given as nested dictionaries; `origin` names it in errors.

    Raises:
        UsageError: A key is unknown or a value does not fit; all mistakes are named.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{origin}: {'; '.join(_sentences(error))}") from None


def dump_recipe(recipe: Recipe) -> str:
    """YAML text of a recipe with every key, as `load_recipe` reads it back."""
    return yaml.safe_dump(_plain(recipe.model_dump()), sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has a notation for."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read_source(source: str | Path) -> tuple[str, str]:
    name = str(source)
    if name in builtin_recipes():
        return (resources.files("etnet.config") / "recipes" / f"{name}.yaml").read_text("utf-8"), f"recipe {name}"
    path = Path(source)
    try:
        return path.read_text("utf-8"), str(path)
    except FileNotFoundError:
        known = builtin_recipes()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"built-in recipes are {', '.join(known)}"
        raise UsageError(f"{name}: neither a built-in recipe nor a file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a recipe ({error})") from None


def _parse_yaml(text: str, origin: str) -> dict[str, Any]:
    try:
        # A SafeLoader subclass: builds plain values only.
        values = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: not valid YAML ({' '.join(str(error).split())})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(
            f"{origin}: holds a {type(values).__name__}; expected sections such as data:, model:, training:"
        )
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise UsageError(f"--set {override}: expected section.key=value, for instance training.epochs=50")
    if re.search(r"[{,]\s*\d+:\d", text):
        # YAML would read 255:1 as a number in base 60.
        raise UsageError(f"--set {override}: put a space after each colon, for instance {{0: 0, 255: 1}}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {override}: the value {text!r} is not valid YAML") from None
    section = values
    for key in keys[:-1]:
        child = section.setdefault(key, {})
        if not isinstance(child, dict):
            raise UsageError(f"--set {override}: {key} is a value, not a section")
        section = child
    section[keys[-1]] = value


def _sentences(error: ValidationError) -> Iterator[str]:
    for mistake in error.errors(include_url=False):
        location = [str(part) for part in mistake["loc"]]
        path = ".".join(location)
        if mistake["type"] == "extra_forbidden":
            yield f"{path} is not a recipe key; {_nearest_key(location)}"
        elif not location:
            yield mistake["msg"].removeprefix("Value error, ")
        else:
            message = mistake["msg"].removeprefix("Value error, ")
            value = "" if isinstance(mistake["input"], (dict, BaseModel)) else f" is {mistake['input']!r};"
            yield f"{path}{value} {message[:1].lower()}{message[1:]}"


def _nearest_key(location: list[str]) -> str:
    """The known key closest to an unknown one: in its own section first, then anywhere in the recipe."""
    by_section = {name: _keys_of(field.annotation) for name, field in Recipe.model_fields.items()}
    if len(location) > 1:
        siblings = [f"{location[0]}.{key}" for key in by_section.get(location[0], ())]
    else:
        siblings = list(by_section)
    everywhere = [f"{section}.{key}" for section, keys in by_section.items() for key in keys]
    last = {candidate.rpartition(".")[2]: candidate for candidate in [*everywhere, *siblings]}
    in_section = {candidate.rpartition(".")[2]: candidate for candidate in siblings}
    for pool in (in_section, last):
        near = difflib.get_close_matches(location[-1], pool, n=1)
        if near:
            return f"did you mean {pool[near[0]]}?"
    return f"keys here are {', '.join(in_section) or ', '.join(by_section)}"


def _keys_of(annotation: Any) -> tuple[str, ...]:
    return tuple(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()
