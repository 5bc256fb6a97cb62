"""Small networks of every kind, recorded: what they compute, and what becomes of them."""

import pytest
from optional import needs
from small_networks import FAST, NETWORKS
from small_networks.fate import fate

from benchmarks import results
from benchmarks.pages import rows


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_network(name):
    needs("diffusers")
    found = fate(name)
    row = rows.one(rows.committed(results.NETWORKS), network=name)
    assert (found.callbacks, bool(found.refused)) == (row["callbacks"], bool(row["refused"])), (
        "the page says otherwise: PYTHONPATH=.:tests/helpers python tests/native/record_networks.py"
    )


def test_every_network_is_on_the_page():
    assert [row["network"] for row in rows.committed(results.NETWORKS)] == list(NETWORKS)
