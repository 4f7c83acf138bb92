"""Numbers as the report prints them, and round steps for its axes."""

from __future__ import annotations

import math


def shown(value: float) -> str:
    """A number with four significant digits, never in powers of ten unless it is extreme.

    >>> [shown(value) for value in (0.59831, 18970, 1.0, 0.00012346, 1234.4, -0.0, 2e15)]
    ['0.5983', '18,970', '1', '0.0001235', '1,234', '0', '2e+15']
    """
    size = abs(value)
    if 1000 <= size < 1e12:
        return f"{value:,.0f}"
    if size and not 1e-4 <= size < 1e12:
        return f"{value:.4g}"
    return f"{value + 0.0:.4g}"


def round_step(span: float, parts: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides a span into at most about so many parts.

    >>> round_step(1.0, 5), round_step(37.0, 8), round_step(0.03, 3)
    (0.2, 5.0, 0.01)
    """
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    # The tolerance keeps 1.0 / 5 = 0.2 from being taken for more than 2 * 0.1.
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


def ticks(low: float, high: float, parts: int) -> list[float]:
    """Round values inside low..high.

    >>> ticks(0.03, 0.42, 4)
    [0.1, 0.2, 0.3, 0.4]
    """
    step = round_step(high - low, parts)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]
