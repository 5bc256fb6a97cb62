"""What the server answered, counted."""

from __future__ import annotations

from collections import Counter


class Counts:
    """answers by (route, method, status); open: requests that are answered now."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.open = 0
