from __future__ import annotations

from etnet.config.load import load_recipe
from etnet.planning.decisions import Decision
from etnet.planning.planning import recipe_of
from etnet.planning.recipe_text import recipe_text

DECISIONS = [
    Decision("data.class_names", ["background", "lésion: 1"], "values 0, 1"),
    Decision("data.mask_values", {0: 0, 255: 1}),
    Decision("data.patient_pattern", r"(.+)\-[^\-]+", "a reason " * 14),
    Decision("training.epochs", 7, "an hour"),
    Decision("data.crop_size", 64),
]


def test_the_written_recipe_is_the_decided_one(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(recipe_text("plan", ["Made here.", ""], DECISIONS), "utf-8")
    assert load_recipe(path) == recipe_of("plan", DECISIONS)


def test_a_reason_stands_beside_its_key_or_above_it_where_it_is_long():
    lines = recipe_text("plan", ["Made here."], DECISIONS).splitlines()
    assert lines[0] == "# Made here."
    assert next(line for line in lines if "epochs" in line).endswith("# an hour")
    place = next(number for number, line in enumerate(lines) if "patient_pattern" in line)
    assert lines[place - 1].strip().startswith("# a reason a reason")
    assert [line for line in lines if not line.startswith((" ", "#"))] == ["name: plan", "data:", "training:"]
