"""A queue in front of many engines, from the rows of benchmarks.runs.queue_simulation."""

from __future__ import annotations

from collections.abc import Mapping

from ... import results
from .. import rows
from ..rows import Row

COMMAND = "python -m benchmarks.runs.queue_simulation"
GPUS = ("10", "100", "1000")
ROUTINGS = {
    "shared": "one shared queue",
    "two": "the less loaded of two",
    "random": "a random one",
}


def scaling_assumed() -> str:
    """The parameters: of the networks, and of what is around them."""
    found = _part("assumed")
    networks = list(dict.fromkeys(row["network"] for row in found if row["network"]))
    body = []
    for name in networks:
        own = rows.some(found, network=name)
        kinds = ", ".join(
            f"{rows.percent(float(row['value']))} of {row['mix']} rows, {row['expected']} "
            f"entr{'y' if row['expected'] == '1' else 'ies'} each"
            for row in rows.some(own, quantity="share of requests")
        )
        first, further, rate = (
            _value(rows.one(own, quantity=quantity))
            for quantity in ("ms, first entry", "ms, each further", "requests/s of a GPU")
        )
        body.append([name, f"{first} ms", f"{further} ms", kinds, rate])
    head = ["network", "a row's first entry", "each further", "requests", "requests/s of a GPU"]
    around = [row for row in found if not row["network"]]
    said = "; ".join(f"{row['quantity']}: {row['value']}" for row in around)
    return f"{rows.lines(head, body)}\n\n{rows.prose(f'Beside them, {said}.', _origin(found))}"


def scaling_checked() -> str:
    """The simulation beside closed forms and beside the engine that was measured."""
    body = [
        [row["network"], f"{row['quantity']}, load {row['load']}", row["value"], row["expected"]]
        for row in _part("theory")
    ]
    for row in _part("engine"):
        what = "all at once" if row["load"] == "1" else f"load {row['load']}"
        name = f"{row['network']}, mix {row['mix']}"
        body.append([name, f"{row['quantity']}, {what}", row["value"], row["expected"]])
    head = ["queue", "what", "simulated", "closed form, or measured"]
    return rows.lines(head, body, 2)


def scaling_loads() -> str:
    """Latencies behind one shared queue."""
    body = []
    for name in _networks("load"):
        for load in dict.fromkeys(row["load"] for row in _part("load")):
            own = rows.some(_part("load"), network=name, load=load, routing="shared")
            cells = [_times(rows.one(own, gpus=gpus)) for gpus in GPUS]
            body.append([name, rows.percent(float(load)), *cells])
    head = ["network", "load", *(f"{_count(gpus)} GPUs" for gpus in GPUS)]
    return rows.lines(head, body, 2)


def scaling_routing() -> str:
    """What each way to choose a replica costs."""
    body = []
    found = rows.some(_part("load"), network="large")
    for load in ("0.8", "0.9", "0.95"):
        for routing, said in ROUTINGS.items():
            own = rows.some(found, load=load, routing=routing)
            cells = [f"{float(rows.one(own, gpus=gpus)['slow_p99']):.1f}" for gpus in GPUS]
            body.append([rows.percent(float(load)), said, *cells])
    head = ["load", "a request goes to", *(f"{_count(gpus)} GPUs" for gpus in GPUS)]
    return rows.lines(head, body, 2)


def scaling_step() -> str:
    """The load doubles."""
    body = [
        [
            _count(row["gpus"]), rows.percent(float(row["load"])), row["replicas"],
            f"{rows.number(float(row['p50_s']))} s", f"{rows.number(float(row['p99_s']))} s",
            f"{float(row['value']):.0f} s",
        ]
        for row in _part("step")
    ]  # fmt: skip
    head = ["GPUs before", "load before", "GPUs after", "p50", "p99", "until nobody waits long"]
    return rows.lines(head, body, 2)


def scaling_loss() -> str:
    """A node is lost."""
    body = []
    for row in _part("loss"):
        calm = rows.one(
            _part("load"),
            network=row["network"],
            gpus=row["gpus"],
            load=row["load"],
            routing="shared",
        )
        cells = [row["replicas"], row["value"], *_seconds(calm), *_seconds(row)]
        body.append([_count(row["gpus"]), rows.percent(float(row["load"])), *cells])
    head = [
        "GPUs",
        "load",
        "lost",
        "made again",
        "p50 before",
        "p99 before",
        "p50 around it",
        "p99 around it",
    ]
    return rows.lines(head, body, 2)


def scaling_bulk() -> str:
    """A million samples."""
    body = []
    found = _part("bulk")
    for name in _networks("bulk"):
        for gpus in GPUS:
            own = rows.some(found, network=name, gpus=gpus)
            cells = []
            for size in dict.fromkeys(row["shard"] for row in own):
                for lost in ("none lost", "one node an hour"):
                    cells.append(_hours(rows.one(own, shard=size, quantity=lost)["value"]))
            body.append([name, _count(gpus), _hours(own[0]["expected"]), *cells])
    small, large = dict.fromkeys(row["shard"] for row in found)
    heads = [f"{size} a shard{more}" for size in (small, large) for more in ("", ", nodes lost")]
    count = _count(found[0]["requests"])
    said = f"{count} samples; `ideal` is their rows over all GPUs, none of which ever waits."
    return f"{rows.lines(['network', 'GPUs', 'ideal', *heads], body, 1)}\n\n{rows.prose(said)}"


def _part(name: str) -> list[Row]:
    return rows.some(rows.committed(results.SCALING), part=name)


def _networks(part: str) -> list[str]:
    return list(dict.fromkeys(row["network"] for row in _part(part)))


def _origin(found: list[Row]) -> str:
    days = {row["date"].partition("T")[0] for row in found}
    return f"Simulated at commit {found[-1]['commit']}, {max(days)}: `{COMMAND}`."


def _count(number: str) -> str:
    return f"{int(number):,}"


def _value(row: Row) -> str:
    return row["value"]


def _seconds(row: Mapping[str, str]) -> list[str]:
    return [f"{rows.number(float(row[key]))} s" for key in ("p50_s", "p99_s")]


def _times(row: Row) -> str:
    p50, p99 = _seconds(row)
    return f"{p50}, {p99} ({float(row['slow_p99']):.1f})"


def _hours(seconds: str) -> str:
    value = float(seconds)
    return f"{value / 3600:.1f} h" if value >= 3600 else f"{value / 60:.1f} min"
