"""How many replicas a deployment has, by the work that waits. Serve's controller gets this file by value."""

from __future__ import annotations

import math
from typing import Any

WANTED, EACH = "wanted", "each"  # what a replica tells: of all that it holds, and of a mean request


def by_work(context: Any) -> tuple[int, dict[str, Any]]:
    """As many replicas as do what is here in the time that it may take.

    context  Serve's AutoscalingContext: of each replica how many replicas its work wants, and how many
             requests still wait in front of them
    """
    told = context.aggregated_metrics or {}
    wanted, each = (list(told.get(name, {}).values()) for name in (WANTED, EACH))
    if not wanted:
        return context.target_num_replicas, {}
    ahead = (context.total_queued_requests or 0.0) * sum(each) / max(len(each), 1)
    return max(1, math.ceil(sum(wanted) + ahead)), {}
