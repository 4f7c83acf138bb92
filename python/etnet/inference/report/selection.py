"""The rows that get a picture: the least certain ones of a stream that is too long to keep."""

from __future__ import annotations

import heapq
import math

from etnet.inference.report.content import ReportRow
from etnet.inference.report.figures import finite


class LeastCertain:
    """Keeps at most `limit` rows: the most uncertain first, then those without an uncertainty in their order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # The heap's smallest is the next to go. Ties keep the earlier row, whose negative place is larger; places
        # differ, so that rows themselves are never compared.
        self._heap: list[tuple[float, int, ReportRow]] = []
        self._seen = 0

    def add(self, row: ReportRow) -> None:
        """Keep a row if it is among the least certain so far."""
        uncertainty = finite(row.uncertainty)
        entry = (-math.inf if uncertainty is None else uncertainty, -self._seen, row)
        self._seen += 1
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif self._limit:
            heapq.heappushpop(self._heap, entry)

    def rows(self) -> list[ReportRow]:
        """The rows kept, least certain first."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
