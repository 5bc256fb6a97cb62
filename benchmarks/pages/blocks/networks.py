"""What becomes of networks that the native executor records, from the rows of
tests/native/record_networks.py."""

from __future__ import annotations

from ... import results
from .. import rows


def networks() -> str:
    """A line a network: its operations, those that torch does, or why it is refused."""
    found = rows.committed(results.NETWORKS)
    body = [
        [
            row["network"],
            f"refused: {row['refused']}" if row["refused"] else row["callbacks"],
            "" if row["refused"] else row["operations"],
        ]
        for row in found
    ]
    whole = [row for row in found if not row["refused"] and not row["callbacks"]]
    table = rows.lines(["network", "done by torch", "operations"], body, left=2)
    return f"{len(whole)} of {len(found)} are recorded without a call of torch.\n\n{table}"
