"""Small networks of every kind in other runtimes: what they compute, and which are refused."""

import pytest
from optional import needs
from small_networks import NETWORKS

from benchmarks import results
from benchmarks.pages import rows

FAST = {"T2IAdapter", "AutoencoderTiny, decoder"}


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_network(name):
    for package in ("diffusers", "onnxscript", "onnxruntime", "openvino"):
        needs(package)
    from small_networks.provided import PROVIDERS, fates

    found = fates(name)
    row = rows.one(rows.committed(results.PROVIDED), network=name)
    assert [bool(found[f"{provider}_refused"]) for provider in PROVIDERS] == [
        bool(row[f"{provider}_refused"]) for provider in PROVIDERS
    ], (
        f"{found}; the page says otherwise: "
        "PYTHONPATH=.:tests/helpers python tests/providers/record_provided.py"
    )


def test_every_network_is_on_the_page():
    assert [row["network"] for row in rows.committed(results.PROVIDED)] == list(NETWORKS)
