"""Five figures for a first page."""

from __future__ import annotations

from ... import results
from .. import rows
from . import native, ops

SPELLED = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


def front() -> str:
    body = [
        step(),
        normals(),
        recorded("call", "W1", "a call of DDPM's U-Net, batch 1"),
        recorded("run", "digits", "20 steps, digits network, batch 1"),
        scheduler_step(),
    ]
    row = rows.one(ops.committed("step"), provider=ops.OURS, case="dpmpp_2m", shape=ops.LARGE)
    processor = row["device"].rsplit(" ", 1)[0]  # rows are of two models of one kind
    return rows.lines([f"{processor}, {row['threads']} threads", "ours", "theirs", "ours is"], body)


def step() -> list[str]:
    """The default solver's, against the fastest of the versions in torch alone."""
    found = rows.some(ops.committed("step"), case="dpmpp_2m", shape=ops.LARGE)
    ours = rows.one(found, provider=ops.OURS)
    plain = [row for row in found if row["provider"].startswith("plain:")]
    best = min(plain, key=lambda row: float(row["median_us"]))
    times = [ops.ms(ours), f"{ops.ms(best)}, best torch"]
    return [f"a step of dpmpp_2m, {ops.LARGE}", *times, _faster(float(ours["vs_best_torch"]))]


def normals() -> list[str]:
    found = rows.some(ops.committed("noise"), shape=ops.LARGE)
    ours, theirs = rows.one(found, provider=ops.OURS), rows.one(found, provider="torch.randn")
    each = [f"{rows.number(float(row['ns_per_element']))} ns" for row in (ours, theirs)]
    return [
        "a normal, on one thread",
        each[0],
        f"{each[1]}, torch",
        _faster(float(ours["vs_best_torch"])),
    ]


def recorded(part: str, network: str, what: str) -> list[str]:
    """A recorded network at batch 1 on a quiet machine, against the best peer."""
    found = native.calls(part, "quiet", network=network, batch="1")
    ours, peer = native.ours(found), native.best_peer(found)
    times = [f"{rows.number(float(row['ms']))} ms" for row in (ours, peer)]
    times[1] += f", {SPELLED.get(peer['contender'], peer['contender'])}"
    return [what, *times, _faster(float(peer["ms"]) / float(ours["ms"]))]


def scheduler_step() -> list[str]:
    """Of the scheduler that does the least itself, against diffusers' own."""
    name, shape = "FlowMatchEulerDiscreteScheduler", "1x4x64x64"
    row = rows.one(rows.committed(results.STEPS), scheduler=name, shape=shape)
    ours, theirs = float(row["ours_us"]), float(row["theirs_us"])
    times = [f"{rows.number(ours)} us", f"{rows.number(theirs)} us, diffusers"]
    return [f"a step of flow matching's Euler, {shape}", *times, _faster(theirs / ours)]


def _faster(ratio: float) -> str:
    return f"{rows.times(ratio)} faster" if ratio >= 1 else f"{rows.times(1 / ratio)} slower"
