from __future__ import annotations

from pathlib import Path

import pytest

from etnet.errors import DataError
from etnet.inference.inputs import InputItem, find_inputs


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_each_line_is_an_input_in_the_order_of_the_table(tmp_path):
    found = find_inputs(table(tmp_path, 'id,path\nb 2,images/x.png\nleft/a,"/abs/a, b.png"\n'))
    assert found.items == (
        InputItem("b 2", tmp_path / "images/x.png", "b 2"),
        InputItem("left/a", Path("/abs/a, b.png"), "left/a"),
    )
    assert found.skipped == 0


def test_the_spacing_is_read_where_it_is_given(tmp_path):
    text = "\ufeffid, path, spacing_row, spacing_col\r\na, a.png, 0.5, 0.25\r\nb, b.png, , \r\n"
    assert [item.spacing for item in find_inputs(table(tmp_path, text)).items] == [(0.5, 0.25), None]


@pytest.mark.parametrize("value", ["nan", "inf", "-0.5", "0", "half", "1,5", ""])
def test_a_spacing_that_is_not_positive_is_refused_with_its_line(tmp_path, value):
    path = table(tmp_path, f'id,path,spacing_row,spacing_col\na,a.png,1,1\nb,b.png,"{value}",0.5\n')
    with pytest.raises(
        DataError, match=rf"list\.csv: line 3 has the spacing {value or 'nothing'} and 0\.5; expected two"
    ):
        find_inputs(path)


@pytest.mark.parametrize("second", ["a", "A"])
def test_two_lines_of_one_id_are_refused(tmp_path, second):
    with pytest.raises(DataError, match=rf"lines 2 and 4 both have the id {second}, so one result would replace"):
        find_inputs(table(tmp_path, f"id,path\na,a.png\nb,b.png\n{second},c.png\n"))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "/a",
        "a/../b",
        "a//b",
        "a/",
        ".a",
        "a\\b",
        "a:b",
        "a\tb",
        "a*",
        "x.png/a",
        "x.npz/a",
        "y/X.NPZ/a",
    ],
)
def test_an_id_that_cannot_name_a_file_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"line 2 has the id '.*', which cannot name a result"):
        find_inputs(table(tmp_path, f"id,path\n{name},a.png\n"))


@pytest.mark.parametrize(
    "header", ["path,id", "id", "id,file", "id,path,spacing", "id,path,spacing_row", "id,path,id", "", "id;file"]
)
def test_another_header_is_refused(tmp_path, header):
    with pytest.raises(DataError, match=r"its first line is .*; expected id,path or id,path,spacing_row,spacing_col"):
        find_inputs(table(tmp_path, f"{header}\na,a.png\n"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_spreadsheets_save_as_csv_is_read(tmp_path, mark, end):
    lines = ["id;path;spacing_row;spacing_col", "a, left;a;0,5;0,25", "b;b.png;;", ""]
    text = mark + end.join(line.replace(";a;", ";a.png;").replace("a, left", "a left") for line in lines)
    first, second = find_inputs(table(tmp_path, text)).items
    assert first == InputItem("a left", tmp_path / "a.png", "a left", (0.5, 0.25))
    assert second == InputItem("b", tmp_path / "b.png", "b")


def test_commas_inside_cells_of_a_table_with_semicolons_are_text(tmp_path):
    (item,) = find_inputs(table(tmp_path, "id;path\nb;a, b.png\n")).items
    assert item.path == tmp_path / "a, b.png"


@pytest.mark.parametrize("value", ["1.000,5", "0,-5", "nan", "1,2,3"])
def test_a_decimal_comma_makes_no_number_of_other_text(tmp_path, value):
    with pytest.raises(DataError, match="line 2 has the spacing"):
        find_inputs(table(tmp_path, f"id;path;spacing_row;spacing_col\na;a.png;{value};0,5\n"))


def test_ids_that_differ_in_how_an_accent_is_written_are_one_name(tmp_path):
    with pytest.raises(DataError, match="lines 2 and 3 both have the id"):
        find_inputs(table(tmp_path, "id,path\nCaf\u00e9,a.png\ncafe\u0301,b.png\n"))


def test_an_id_that_is_too_long_for_the_names_of_results_is_refused(tmp_path):
    (item,) = find_inputs(table(tmp_path, f"id,path\n{'x' * 240},a.png\n")).items
    assert len(item.output_name) == 240
    with pytest.raises(
        DataError, match=r"line 2 has the id .*, which cannot name a result; expected .* 240 bytes each"
    ):
        find_inputs(table(tmp_path, f"id,path\n{'é' * 121},a.png\n"))


@pytest.mark.parametrize("path", ["a\tb.png", "a\x00b.png", '"a\nb.png"'])
def test_a_path_that_no_message_can_hold_is_refused(tmp_path, path):
    with pytest.raises(DataError, match=r"has the path .*a\\x0[0-9a]b\.png with a line end or control") as caught:
        find_inputs(table(tmp_path, f"id,path\nx,{path}\n"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["a", "a,b.png,c", "a,"])
def test_a_line_with_too_many_or_too_few_values_is_refused(tmp_path, line):
    with pytest.raises(DataError, match="line 2 has"):
        find_inputs(table(tmp_path, f"id,path\n{line}\n"))


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "0 bytes"), (b"id,path\n", "no line"), (b"id,path\n\xff\xfe,a\n", "UTF-8"), (b"id,path\n\xe9,a\n", "UTF-8")],
)
def test_a_table_without_lines_or_of_other_text_is_refused(tmp_path, content, word):
    with pytest.raises(DataError, match=word) as caught:
        find_inputs(table(tmp_path, content))
    assert "\n" not in str(caught.value)
