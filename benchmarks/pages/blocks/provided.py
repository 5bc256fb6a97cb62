"""What becomes of networks that other runtimes run, from the rows of tests/providers/record_provided.py."""

from __future__ import annotations

from ... import results
from .. import rows

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def networks_providers() -> str:
    """A line a network: how far it is off in each runtime, or why it is refused."""
    found = rows.committed(results.PROVIDED)
    body = [[row["network"], *_cells(row)] for row in found]
    totals = [
        f"{title} {found[-1][name]} runs {sum(not row[f'{name}_refused'] for row in found)} of {len(found)}"
        for name, title in TITLES.items()
    ]
    each = sum(row["batch"] == "each" for row in found)
    said = rows.prose(
        f"{', '.join(totals)}. {each} are exported anew for each size of a call, the others once. A number "
        f"is the difference from the module, of its largest value; torch {found[-1]['torch']}."
    )
    return f"{said}\n\n{rows.lines(['network', *TITLES.values()], body, left=len(TITLES) + 1)}"


def _cells(row: rows.Row) -> list[str]:
    """What becomes of a network in each runtime; a reason that both have is said once."""
    reasons = [row[f"{name}_refused"] for name in TITLES]
    said = [
        f"refused: {reason.replace('|', chr(92) + '|')}" if reason else row[f"{name}_error"]
        for name, reason in zip(TITLES, reasons, strict=True)
    ]
    return [said[0], "the same"] if reasons[0] and len(set(reasons)) == 1 else said
