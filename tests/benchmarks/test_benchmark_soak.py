"""A short soak: its rows are whole, and nothing that it made again is wrong."""

import asyncio

from benchmarks import results, soak


def test_a_short_soak(monkeypatch):
    monkeypatch.setattr(soak, "KEPT", 6)
    given = soak.parser().parse_args(["--minutes", "0.05", "--requests", "4"])
    minute, whole = asyncio.run(soak.soak(given))
    assert tuple(minute) == tuple(whole) == results.SOAK_KEYS
    assert (minute["minute"], whole["minute"]) == (1, "all")
    assert whole["failed"] == 0 < whole["done"] == minute["done"]
    assert (whole["checked"], whole["wrong"]) == (6, 0)
    assert (
        whole["server_mb"] > 10 and whole["worker_mb"] > 100 and whole["p99_ms"] >= whole["p50_ms"]
    )


def test_growth_and_drift_are_those_after_the_first_minute():
    parts = [
        soak.Part(latencies=[s] * 9, memory=(m, 5.0)) for s, m in ((9, 1), (2, 3), (2, 3), (3, 7))
    ]
    found = soak._whole(parts, 60.0)
    assert found["growth_mb"] == 6 and found["p99_drift"] == 0.5


def test_what_is_given_up_and_what_is_wrong_have_their_shares():
    load = soak.Load(None, None)
    kinds = [what for what, _ in load._asked]
    share = {what: kinds.count(what) / len(kinds) for what in set(kinds)}
    assert 0.004 < share["bad"] < 0.02
    assert 0.03 < share["leave"] + share["delete"] + share["hang_up"] < 0.08
