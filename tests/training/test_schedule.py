import pytest

from etnet.training.schedule import poly_learning_rate, total_iterations


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
