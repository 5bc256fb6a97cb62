"""Plans as tables: what is saved comes back, and what is no mathematics is refused."""

import json
import math
from dataclasses import fields, replace

import pytest

from diffusion_engine import Plan, Row
from diffusion_engine.plan import CELLS, Call
from diffusion_engine.plan.linear import denoised, normal, raw, slot, x
from diffusion_engine.processes import Point

AT, AFTER = Point(0.5, 0.8, 0.6), Point(0.25, 0.9, 0.4)
FIRST = Row(None, {0: 0.6 * normal(0), 1: 0.0 * x, 2: normal(1)}, key=3, state=AT)
# Every field away from its default.
FULL = Row(
    call=Call(AT, 499.5, read=(0, 1), c_in=(1.25, 0.75)),
    new={0: 1.5 * x + 0.25 * denoised, 1: slot(2) + 0.1 * raw + 0.2 * normal(1), 2: denoised},
    p=(0.5, 0.25),
    q=(2.0, -1.0, 0.5),
    e=(1.0, 0.5, 0.25),
    channel_blocks=(0, 0, 1),
    branches=(0, 1, 0),
    clip=(-1.5, 1.0),
    scale=0.5,
    learned=(0.1, 0.2, 2),
    known=(0.9, 0.4),
    key=2**31 + 5,
    state=AFTER,
    spans=((0, 5, 7), (1, 6, CELLS)),
    guider=("rescale", (2.0, 0.7)),
)
PLAN = Plan((FIRST, FULL), "every field", exact=False)


def test_every_field_of_a_plan_is_saved():
    for field in fields(Row):
        if field.name not in ("call", "new", "unconditional"):  # see test_cfg_pp.py
            assert getattr(FULL, field.name) != field.default, field.name
    again = Plan.from_json(PLAN.to_json())
    for one, two in zip(again.rows, PLAN.rows, strict=True):
        for field in fields(Row):
            assert getattr(one, field.name) == getattr(two, field.name), field.name
    assert (again.name, again.exact) == ("every field", False)
    assert again.to_json() == PLAN.to_json()
    kept = Plan((replace(FIRST, new={0: x}), replace(TRANSPORT, new={0: 1.125 * x})), "kept")
    assert Plan.from_json(kept.to_json()).exact


def test_a_plan_as_one_reads_it():
    assert str(
        replace(PLAN, rows=(FIRST, replace(FULL, clip=None, scale=1.0, e=(), guider=None)))
    ) == (
        "every field: 2 rows, 1 calls, 3 slots\n"
        "   0  start\n"
        "        S0 <- 0.6 z0\n        S1 <- 0\n        S2 <- 1 z1\n"
        "   1  t=0.5 label=499.5  D = 0.5 S0 + 0.25 S1 + 2 out0 - 1 out1 + 0.5 out2\n"
        "        S0 <- 1.5 S0 + 0.25 D\n        S1 <- 1 S2 + 0.1 raw + 0.2 z1\n        S2 <- 1 D"
    )
    silent = str(replace(PLAN, rows=(FIRST, Row(None, {0: 2.0 * x}), FULL)))
    assert "   1  no call\n        S0 <- 2 S0\n   2  t=0.5" in silent
    clipped = str(PLAN).splitlines()[5:7]
    assert clipped[0].endswith(
        " D = 0.5 clip(0.5 S0 + 0.25 S1 + 2 out0 - 1 out1 + 0.5 out2, -1.5, 1)"
    )
    assert clipped[1] == "        raw = 1 out0 + 0.5 out1 + 0.25 out2"


def test_a_plan_of_the_first_format():
    """It says "blocks" of what is "channel_blocks" now."""
    body = json.loads(PLAN.to_json())
    rows = [
        {("blocks" if k == "channel_blocks" else k): v for k, v in r.items()} for r in body["rows"]
    ]
    again = Plan.from_json(json.dumps(body | {"format": "diffusion-engine-plan/1", "rows": rows}))
    assert again == PLAN and again.to_json() == PLAN.to_json()
    with pytest.raises(ValueError, match="this is not a saved plan"):
        Plan.from_json(json.dumps(body | {"rows": rows}))


def test_what_a_plan_counts():
    assert (PLAN.slots, PLAN.outputs, PLAN.normals, PLAN.inputs) == (3, 3, 2, 2)
    assert (PLAN.entries, PLAN.nfe, PLAN.evaluations, PLAN.learned) == (2, 1, 2, True)
    assert PLAN.branches == ((), (0, 1, 0)) and FULL.entries == (0, 1)
    twice = replace(PLAN, rows=(FIRST, replace(FULL, call=None, p=(), q=(), e=(), channel_blocks=(),
                                               branches=(), learned=None), FULL))  # fmt: skip
    assert (twice.nfe, twice.evaluations) == (1, 2)
    only = Row(None, {0: 0.6 * normal(0)}, state=AT)
    plain = Plan(
        (only, replace(FULL, call=Call(AT, 0.5), new={0: x}, p=(1.0,), learned=None)), exact=False
    )
    assert (plain.slots, plain.normals, plain.inputs, plain.learned) == (1, 1, 1, False)
    second = Plan((replace(only, new={0: normal(1)}), plain.rows[1]), exact=False)
    assert (
        second.normals == 2
        and Plan((replace(only, new={0: x}), plain.rows[1]), exact=False).normals == 0
    )


TRANSPORT = Row(
    Call(AT, 0.5), {0: 0.5 * x + 0.5 * denoised}, p=(1.0,), q=(1.0,), channel_blocks=(0,), branches=(0,),
    state=AFTER,
)  # fmt: skip


def test_the_transport_of_x0_is_followed():
    """0.5 alpha_s + 0.5 = alpha_t: where it holds, to rounding."""
    start = replace(FIRST, new={0: x})
    assert Plan((start, TRANSPORT)).exact
    off = replace(TRANSPORT, new={0: 0.5 * x + (0.5 + 1e-8) * denoised})
    with pytest.raises(ValueError, match=r"row 1 does not transport x0: .* slot 0 holds 0\.9"):
        Plan((start, off))
    Plan((start, off), exact=False)
    Plan((start, replace(off, state=None), TRANSPORT), exact=False)
    # A slot that was written carries its own x0, and rows go on from what the rows before left.
    through = (
        start,
        replace(TRANSPORT, new={1: denoised, 0: x}, state=None),
        replace(TRANSPORT, new={0: 0.5 * x + 0.5 * slot(1)}),
    )
    assert Plan(through).exact
    with pytest.raises(ValueError, match="row 2 does not transport x0"):
        Plan((*through[:2], replace(TRANSPORT, new={0: 0.5 * x + 0.25 * slot(1)})))


@pytest.mark.parametrize(
    "fields_, message",
    [
        ({"scale": math.nan}, "not finite"),
        ({"known": (0.5, math.inf)}, "not finite"),
        ({"learned": (0.0, math.nan, 1)}, "not finite"),
        ({"p": (math.inf, 0.0)}, "not finite"),
        ({"e": (1.0, math.nan, 0.0)}, "not finite"),
        ({"call": Call(AT, math.nan)}, "not finite"),
        ({"call": Call(AT, 0.5, c_in=(math.inf,))}, "not finite"),
        ({"call": Call(AT, 0.5, read=(0, 1), c_in=(1.0,))}, "1 or 2 slots, each with its scale"),
        ({"call": Call(AT, 0.5, read=(0, 1, 2), c_in=(1.0,) * 3)}, "1 or 2 slots, each with"),
        ({"call": Call(AT, 0.5, read=(), c_in=())}, "1 or 2 slots, each with its scale"),
        ({"call": Call(AT, 0.5, read=(0, 4), c_in=(1.0, 1.0))}, r"reads slots \[4\] before any"),
        ({"p": (0.0, 0.0, 0.0, 0.5)}, r"reads slots \[3\] before any row wrote them"),
        ({"new": {0: x, 1: slot(4)}}, r"reads slots \[4\] before any row wrote them"),
        ({"new": {}}, r"writes slots \[\]; it has to write some of 0 to 4"),
        ({"new": {5: x}}, r"writes slots \[5\]"),
        ({"new": {-1: x}}, r"writes slots \[-1\]"),
        ({"p": (0.1,) * 6}, "has 6 slots and 3 outputs; 5 and 16 at most"),
        ({"q": (0.1,) * 17}, "has 2 slots and 17 outputs"),
        ({"channel_blocks": (0, 1)}, "q, channel_blocks, branches and e need one value for each output"),
        ({"branches": (0, 0)}, "one value for each output"),
        ({"e": (1.0,)}, "one value for each output"),
        ({"spans": ((0, 7, 7),)}, "spans are"),
        ({"spans": ((0, -1, 7),)}, "spans are"),
        ({"call": None}, "has no network call and takes outputs of one"),
        ({"call": None, "q": (), "channel_blocks": (), "branches": (), "e": ()}, "takes outputs of one"),
    ],
)  # fmt: skip
def test_rows_that_are_refused(fields_, message):
    rows = (FIRST, replace(FULL, **fields_), FULL)
    with pytest.raises(ValueError, match=message):
        Plan(rows, exact=False)


def test_a_weight_of_zero_reads_nothing():
    Plan(
        (FIRST, replace(FULL, p=(0.5, 0.0, 0.0, 0.0, 0.0), new={0: x + 0.0 * slot(4)})), exact=False
    )


@pytest.mark.parametrize(
    "change",
    [
        {"format": "diffusion-engine-plan/3"}, {"rows": [{}]}, {"rows": 3}, {"name": None, "rows": [3]},
    ],
)  # fmt: skip
def test_texts_that_are_no_plan(change):
    with pytest.raises(ValueError, match=r"this is not a saved plan .*to_json\(\)"):
        Plan.from_json(json.dumps(json.loads(PLAN.to_json()) | change))
