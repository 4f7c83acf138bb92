from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from etnet.errors import DataError
from etnet.metrics.comparison import ScoreDifference, StoredEvaluation, compare_evaluations, read_evaluation
from etnet.metrics.statistics import PairedDifference, paired_difference
from helpers.backends import random_labels
from helpers.evaluations import write_evaluation
from helpers.samples import sample


def noisy(seed: int, share: float) -> np.ndarray:
    """Labels of image `seed` with a share of wrong pixels."""
    generator = np.random.default_rng(1000 + seed)
    labels = random_labels(24, 24, seed=seed)
    wrong = generator.random(labels.shape) < share
    return np.where(wrong, (labels + 1) % 3, labels).astype(np.uint8)


def samples(share: float, seeds=range(8), **options):
    return [sample(f"eye_{seed}", noisy(seed, share), random_labels(24, 24, seed=seed), **options) for seed in seeds]


@pytest.fixture
def pair(tmp_path) -> tuple[StoredEvaluation, StoredEvaluation]:
    folders = [write_evaluation(tmp_path / name, *samples(share)) for name, share in (("a", 0.3), ("b", 0.1))]
    return read_evaluation(folders[0]), read_evaluation(folders[1])


def by_score(differences: list[ScoreDifference]) -> dict[tuple[str, str], ScoreDifference]:
    return {(difference.region, difference.score): difference for difference in differences}


def test_every_score_is_compared_image_by_image(pair):
    a, b = pair
    rows = by_score(compare_evaluations(a, b))
    dice = rows["whole_image", "vessel_dice"]
    columns = []
    for stored in pair:
        with (stored.folder / "per_image.csv").open(newline="", encoding="utf-8") as stream:
            columns.append([float(row["whole_image_vessel_dice"]) for row in csv.DictReader(stream)])
    assert dice.paired.mean_a == pytest.approx(np.mean(columns[0]))
    assert dice.paired.difference == pytest.approx(np.mean(columns[1]) - np.mean(columns[0]))
    assert dice.paired.pairs == 8
    # All eight images favour B: 2 of the 2^8 sign patterns are as extreme, which is what Wilcoxon's test finds too.
    assert dice.paired.p_value == pytest.approx(2 / 2**8)
    assert stats.wilcoxon(*columns).pvalue == pytest.approx(2 / 2**8)
    assert dice.winner == "B"
    assert rows["whole_image", "vessel_hd95_px"].better == "lower"
    assert rows["clinical", "vessel_density_error"].better == "nearer to 0"
    assert ("clinical", "vessel_density_true") not in rows


def test_the_order_of_the_images_in_the_table_does_not_matter(pair):
    a, b = pair
    order = np.arange(8)[::-1]
    turned = StoredEvaluation(
        b.folder, b.metrics, tuple(b.images[index] for index in order), {k: v[order] for k, v in b.scores.items()}
    )
    assert compare_evaluations(a, turned) == compare_evaluations(a, b)


def test_exchanging_the_models_exchanges_the_result(pair):
    a, b = pair
    forward, backward = by_score(compare_evaluations(a, b)), by_score(compare_evaluations(b, a))
    for place, row in forward.items():
        other = backward[place]
        assert other.paired.difference == pytest.approx(-row.paired.difference)
        assert other.paired.p_value == pytest.approx(row.paired.p_value)
        assert {row.winner, other.winner} in ({"A", "B"}, {None})


def test_regions_are_told_apart_where_one_is_named_like_the_beginning_of_another(tmp_path):
    def regions(given):
        return {"disc": None, "disc_region": np.ones(given.mask.shape, bool)}

    folders = [
        write_evaluation(tmp_path / name, *samples(share), regions=regions) for name, share in (("a", 0.3), ("b", 0.1))
    ]
    rows = by_score(compare_evaluations(*(read_evaluation(folder) for folder in folders)))
    assert rows["disc", "accuracy"].paired == rows["disc_region", "accuracy"].paired
    assert {region for region, _ in rows} == {"disc", "disc_region", "clinical"}


def test_missing_images_are_named(pair, tmp_path):
    fewer = read_evaluation(write_evaluation(tmp_path / "fewer", *samples(0.1, seeds=range(3, 9))))
    with pytest.raises(DataError, match=r"fewer lacks eye_0, eye_1, eye_2 and \S+/a lacks eye_8"):
        compare_evaluations(pair[0], fewer)
    many = read_evaluation(write_evaluation(tmp_path / "many", *samples(0.1, seeds=range(7, 9))))
    with pytest.raises(DataError, match="eye_0, eye_1, eye_2 and 4 more"):
        compare_evaluations(pair[0], many)


def test_other_masks_of_the_same_names_are_refused(pair, tmp_path):
    changed = [sample(f"eye_{seed}", noisy(seed, 0.1), noisy(seed, 0.01)) for seed in range(8)]
    other = read_evaluation(write_evaluation(tmp_path / "other", *changed))
    with pytest.raises(DataError, match="same names but other masks"):
        compare_evaluations(pair[0], other)


def test_evaluations_around_other_centres_are_refused(pair):
    found, true = (replace(stored, metrics={**stored.metrics, "centers": kind}) for stored, kind in
                   zip(pair, ("found", "true"), strict=True))  # fmt: skip
    with pytest.raises(DataError, match="the first was scored around found centres, the second around true centres"):
        compare_evaluations(found, true)


def test_other_regions_and_classes_are_refused(pair, tmp_path):
    view = np.ones((24, 24), bool)
    inside = read_evaluation(write_evaluation(tmp_path / "inside", *samples(0.1, field_of_view=view)))
    with pytest.raises(DataError, match="different regions, whole_image and whole_image, field_of_view"):
        compare_evaluations(pair[0], inside)
    grouped = read_evaluation(write_evaluation(tmp_path / "grouped", *samples(0.1), class_groups=(("all", (1, 2)),)))
    with pytest.raises(DataError, match="different classes"):
        compare_evaluations(pair[0], grouped)


def without(key):
    def remove(folder):
        content = json.loads((folder / "metrics.json").read_text("utf-8"))
        del content[key]
        (folder / "metrics.json").write_text(json.dumps(content), "utf-8")

    return remove


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "per_image.csv").unlink(), r"per_image\.csv: no such file; expected a folder"),
        (lambda folder: (folder / "metrics.json").unlink(), r"metrics\.json: no such file"),
        (lambda folder: (folder / "metrics.json").write_text("{", "utf-8"), "no complete evaluation"),
        (lambda folder: (folder / "metrics.json").write_text("[]", "utf-8"), "no complete evaluation"),
        (lambda folder: (folder / "per_image.csv").write_text("", "utf-8"), "no complete evaluation"),
        (lambda folder: (folder / "per_image.csv").write_text("image,a\n1,x\n", "utf-8"), "no complete evaluation"),
        (lambda folder: (folder / "per_image.csv").write_text(f"image,a\n1,{'1' * 200000}\n", "utf-8"), "field larger"),
        (lambda folder: (folder / "per_image.csv").write_text("image,a,b\n1,2\n", "utf-8"), None),
        (without("ground_truth_sha256"), "ground_truth_sha256"),
        (without("model"), "model"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, damage, message):
    folder = write_evaluation(tmp_path / "a", *samples(0.1))
    damage(folder)
    if message is None:
        assert math.isnan(read_evaluation(folder).scores["b"][0])
        return
    with pytest.raises(DataError, match=message) as caught:
        read_evaluation(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("better", "means", "interval", "winner"),
    [
        ("higher", (0.5, 0.6), (0.05, 0.15), "B"),
        ("higher", (0.6, 0.5), (-0.15, -0.05), "A"),
        ("lower", (0.5, 0.6), (0.05, 0.15), "A"),
        ("nearer to 0", (-0.5, -0.1), (0.3, 0.5), "B"),
        ("nearer to 0", (-0.11, 0.10), (0.2, 0.22), None),
        ("nearer to 0", (0.1, 0.5), (0.3, 0.5), "A"),
        ("higher", (0.5, 0.6), (-0.01, 0.15), None),
        ("higher", (0.5, 0.5), (0.0, 0.0), None),
        ("higher", (0.5, 0.6), (math.nan, math.nan), None),
    ],
)
def test_a_model_wins_when_the_interval_leaves_out_0(better, means, interval, winner):
    paired = PairedDifference(9, *means, means[1] - means[0], interval, 0.01)
    assert ScoreDifference("whole_image", "any", better, paired).winner == winner


def test_two_images_that_favour_one_model_make_no_winner():
    paired = paired_difference(np.array([0.5, 0.6]), np.array([0.6, 0.8]))
    assert paired.interval[0] > 0
    assert paired.p_value == 0.5
    assert ScoreDifference("whole_image", "any", "higher", paired).winner is None
