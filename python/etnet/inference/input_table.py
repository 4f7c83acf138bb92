"""Tables of inputs: a CSV file with `id,path[,spacing_row,spacing_col]`, one image or volume per line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from etnet.data.file_names import MOST_NAME_BYTES, same_name_key, visible_name
from etnet.data.picture_files import file_bytes
from etnet.errors import DataError
from etnet.inference.inputs import InputItem, is_named_like_a_result

COLUMNS = ("id", "path", "spacing_row", "spacing_col")
_FORBIDDEN = frozenset('\\:*?"<>|')


def read_table(table: Path) -> tuple[InputItem, ...]:
    """Read a table of inputs; whether its files exist shows when they are opened.

    Args:
        table: UTF-8 file with any ends of lines, separated by commas, or by semicolons, with commas in decimal numbers,
            as spreadsheets of many countries write it. `id` names the results, and may hold `/` to sort them into
            folders; `path` is absolute or relative to the table's folder; `spacing_row` and `spacing_col` are the
            distances in mm between rows and between columns, both or neither of a line.

    Raises:
        DataError: A column is missing or unknown, a line lacks a value, two lines have one id (letter case does not
            count), an id cannot be a file name, or a spacing is not a positive number.
    """
    stream = io.StringIO(_text(table), newline=None)
    first = stream.readline()
    stream.seek(0)
    semicolons = ";" in first and "," not in first
    reader = csv.DictReader(stream, skipinitialspace=True, delimiter=";" if semicolons else ",")
    try:
        _check_columns(table, reader.fieldnames or ())
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(
            f"{table}: line {reader.line_num} is no line of a CSV table ({error}); save it again"
        ) from error
    first_line: dict[str, int] = {}
    items = []
    for number, row in lines:
        item = _item(table, number, row, decimal="," if semicolons else ".")
        earlier = first_line.setdefault(same_name_key(item.output_name), number)
        if earlier != number:
            raise DataError(
                f"{table}: lines {earlier} and {number} both have the id {item.id}, so one result would replace the "
                "other; give each its own"
            )
        items.append(item)
    if not items:
        raise DataError(f"{table}: has no line below its header; expected one per image")
    return tuple(items)


def _text(table: Path) -> str:
    try:
        return file_bytes(table).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: is not UTF-8 text at byte {error.start}; save the table as CSV in UTF-8") from error


def _check_columns(table: Path, header: object) -> None:
    names = [str(name).strip() for name in header] if isinstance(header, (list, tuple)) else []
    wrong = [name for name in names if name not in COLUMNS]
    if wrong or names[:2] != ["id", "path"] or len(set(names)) != len(names) or len(names) == 3:
        raise DataError(
            f"{table}: its first line is {','.join(names) or 'empty'}; expected id,path or "
            "id,path,spacing_row,spacing_col"
        )


def _item(table: Path, number: int, row: Mapping[str | None, str | None], *, decimal: str) -> InputItem:
    if None in row or any(value is None for value in row.values()):
        raise DataError(f"{table}: line {number} has not as many values as the header; put text with commas in quotes")
    cells = {str(name).strip(): str(value).strip() for name, value in row.items()}
    if not cells["path"]:
        raise DataError(f"{table}: line {number} has no path; remove the line or name the file")
    if visible_name(cells["path"]) != cells["path"]:
        raise DataError(
            f"{table}: line {number} has the path {visible_name(cells['path'])} with a line end or control character; "
            "correct it, or rename the file"
        )
    _check_id(table, number, cells["id"])
    return InputItem(cells["id"], table.parent / cells["path"], cells["id"], _spacing(table, number, cells, decimal))


def _check_id(table: Path, number: int, name: str) -> None:
    parts = PurePosixPath(name).parts
    plain = not any(character in _FORBIDDEN or not character.isprintable() for character in name)
    # A folder a.png would take the place of the mask of another input called a.
    named_like_files = any(map(is_named_like_a_result, parts[:-1]))
    if (
        not parts
        or name != "/".join(parts)
        or not plain
        or named_like_files
        or any(part.startswith(".") or len(part.encode()) > MOST_NAME_BYTES for part in parts)
    ):
        raise DataError(
            f"{table}: line {number} has the id {name!r}, which cannot name a result; expected letters, digits, "
            f"spaces, - _ . and / between folders without a suffix, of at most {MOST_NAME_BYTES} bytes each"
        )


def _spacing(table: Path, number: int, cells: Mapping[str, str], decimal: str) -> tuple[float, float] | None:
    texts = cells.get("spacing_row", ""), cells.get("spacing_col", "")
    if texts == ("", ""):
        return None
    try:
        row, column = (float(text.replace(decimal, ".")) for text in texts)
    except ValueError:
        row = column = math.nan
    if not all(math.isfinite(value) and value > 0 for value in (row, column)):
        raise DataError(
            f"{table}: line {number} has the spacing {texts[0] or 'nothing'} and {texts[1] or 'nothing'}; expected two "
            "positive numbers in mm, or nothing in both columns"
        )
    return row, column
