"""What becomes of networks that other runtimes run, from the rows of tests/providers/record_provided.py."""

from __future__ import annotations

from ... import results
from .. import rows

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def networks_providers() -> str:
    """A line a network: how far it is off in each runtime, or why it is refused."""
    found = rows.committed(results.PROVIDED)
    body = [[row["network"], *(_cell(row, name) for name in TITLES)] for row in found]
    totals = [
        f"{title} {found[-1][name]} runs {sum(not row[f'{name}_refused'] for row in found)} of {len(found)}"
        for name, title in TITLES.items()
    ]
    each = sum(row["batch"] == "each" for row in found)
    table = rows.lines(["network", *TITLES], body, left=len(TITLES) + 1)
    return (
        f"{', '.join(totals)}. {each} are exported anew for each size of a call, the others once. A number "
        f"is the difference from the module, of its largest value; torch {found[-1]['torch']}.\n\n{table}"
    )


def _cell(row: rows.Row, name: str) -> str:
    reason = row[f"{name}_refused"].replace("|", "\\|")
    return f"refused: {reason}" if reason else row[f"{name}_error"]
