import numpy as np
import pytest

from etnet.training.schedule import poly_learning_rate, scheduled_alpha, total_iterations


def test_drive_by_the_paper_takes_375_steps() -> None:
    assert total_iterations(num_images=20, epochs=300, batch_size=16) == 375


@pytest.mark.parametrize(("images", "epochs", "batch", "steps"), [(1, 1, 16, 1), (3, 2, 4, 2), (18, 2, 2, 18)])
def test_a_run_has_at_least_one_step_and_rounds_up(images: int, epochs: int, batch: int, steps: int) -> None:
    assert total_iterations(num_images=images, epochs=epochs, batch_size=batch) == steps


def test_poly_rate_follows_the_papers_formula() -> None:
    rates = [poly_learning_rate(step, total=8, base_lr=0.005, power=0.9) for step in range(8)]
    assert rates[0] == 0.005
    assert rates[4] == pytest.approx(0.005 * 0.5**0.9)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_power_zero_keeps_the_rate() -> None:
    assert poly_learning_rate(7, total=8, base_lr=0.1, power=0.0) == 0.1


def test_without_points_alpha_stays() -> None:
    assert {scheduled_alpha(step, total=7, alpha=0.3, points=()) for step in range(7)} == {0.3}


def test_alpha_is_interpolated_between_the_points() -> None:
    points = [(0.25, 0.3), (0.75, 0.9), (0.9, 0.5)]
    found = [scheduled_alpha(step, total=40, alpha=0.1, points=points) for step in range(40)]
    expected = np.interp(np.arange(40) / 40, [0.0, 0.25, 0.75, 0.9], [0.1, 0.3, 0.9, 0.5])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_alpha_has_the_value_of_a_point_at_the_point() -> None:
    assert scheduled_alpha(5, total=10, alpha=0.3, points=[(0.5, 0.7), (1.0, 0.2)]) == 0.7
