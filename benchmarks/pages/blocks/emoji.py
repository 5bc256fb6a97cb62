"""Pictures from words, from the rows of benchmarks.runs.emoji."""

from __future__ import annotations

from diffusion_engine.evaluation.pictures import CLASSIFIER, NEAR
from diffusion_engine.zoo import card

from ... import results
from .. import rows
from ..rows import Row

COMMAND = "python -m benchmarks.runs.emoji"
Z = 1.96  # standard deviations that 95 % of a normal law lie within
PROMPTS = ("captions", "paraphrases")


def emoji_features() -> str:
    """What the classifier knows, and of how many copies it tells which picture they are of."""
    found = rows.some(rows.committed(results.EMOJI), part="features")
    known = card(CLASSIFIER).figures
    told = ", ".join(f"{row['quantity']} {rows.percent(float(row['value']))}" for row in found)
    return rows.prose(
        f"The classifier knows the category of {rows.percent(known['accuracy'])} of {known['held_out']} "
        f"held-out pictures. Of copies of all {found[0]['samples']} pictures its own picture is the nearest: "
        f"{told}.",
        rows.origin(*found, command=f"{COMMAND} features"),
    )


def emoji_found() -> str:
    """Of captions and paraphrases: how many first samples are found, and shares of all samples."""
    found = rows.committed(results.EMOJI)
    body = []
    for part in PROMPTS:
        same = rows.some(found, part=part)
        ranks = [int(row["rank"]) for row in same if row["rank"]]
        body.append([
            part, f"{sum(rank <= NEAR for rank in ranks)} of {len(ranks)}",
            f"{sum(rank == 1 for rank in ranks)} of {len(ranks)}",
            figure(same, "found"), figure(same, "accuracy"),
        ])  # fmt: skip
    head = ["", f"among the {NEAR} nearest", "nearest of all", "share of all samples", "category"]
    measured = rows.some(found, part=PROMPTS[0], quantity="found")[-1]
    said = (
        f"The first two columns are of the first sample of each prompt, the last two of all "
        f"{measured['samples']}, {measured['calls']} calls at the scale {measured['guidance']}, with 95 % "
        f"over prompts."
    )
    return f"{rows.lines(head, body)}\n\n{rows.prose(said, _origin(found))}"


def emoji_copies() -> str:
    """How near samples come to training pictures, beside held-out ones."""
    found = rows.committed(results.EMOJI)
    body = []
    for part in PROMPTS:
        same = [row for row in rows.some(found, part=part) if row["quantity"]]
        kinds = [row["quantity"].rpartition(", ")[0] for row in same if ", " in row["quantity"]]
        for kind in dict.fromkeys(kinds):
            values = [float(rows.one(same, quantity=f"{kind}, {w}")["value"]) for w in WHO]
            show = rows.number if kind == "nearest" else rows.percent
            body.append([f"{part}: {SAID.get(kind, f'share {kind}')}", *map(show, values)])
    return f"{rows.lines(['', 'samples', 'held-out pictures'], body)}\n\n{_origin(found)}"


WHO = ("samples", "held_out")
SAID = {
    "nearest": "median distance to the nearest",
    "ratio below 1/3": "share with d1 / d2 below 1/3",
}


def emoji_paraphrases() -> str:
    """Every paraphrase with what it means, what its sample is nearest to, and the rank of its own picture."""
    found = rows.some(rows.committed(results.EMOJI), part="paraphrases", quantity="")
    body = [
        [row["prompt"], row["name"], row["nearest"], row["rank"], f"{float(row['distance']):.2f}"]
        for row in found
    ]
    head = ["prompt", "its picture", "nearest picture", "rank", "distance"]
    return f"{rows.lines(head, body, 3)}\n\n{_origin(found)}"


def emoji_words() -> str:
    """What the text encoder leaves of the paraphrases."""
    found = rows.some(rows.committed(results.EMOJI), part="words")
    n = int(found[0]["samples"])
    own, near, drawn = (round(n * float(row["value"])) for row in found)
    return rows.prose(
        f"Of the {n} paraphrases the encoder puts {own} nearest to a caption of their own picture, and "
        f"{near} have one among those of the {NEAR} nearest pictures. Told that nearest caption in the "
        f"paraphrase's place, which is retrieval, the network draws {drawn} that are found.",
        rows.origin(*found, command=f"{COMMAND} words"),
    )


def emoji_guidance() -> str:
    """Fidelity and diversity at every scale."""
    found = rows.some(rows.committed(results.EMOJI), part="guidance")
    body = [[scale, *_figures(same)] for (scale,), same in rows.grouped(found, "guidance")]
    return f"{rows.lines(['scale', *HEAD], body, 0)}\n\n{_origin(found)}"


def emoji_calls() -> str:
    """The network and its distilled form in few calls."""
    found = rows.some(rows.committed(results.EMOJI), part="calls")
    body = [
        [f"`{model}`", calls, scale, *_figures(same), f"{seconds(same):.0f} ms"]
        for (model, calls, scale), same in rows.grouped(found, "model", "calls", "guidance")
    ]
    head = ["network", "calls", "scale", *HEAD, "a picture"]
    return f"{rows.lines(head, body)}\n\n{_origin(found)}"


HEAD = ["found", "category", "diversity", "distance"]


def emoji_time() -> str:
    """How long the command takes for 4 pictures."""
    found = rows.some(rows.committed(results.EMOJI), part="time")
    told = []
    for waiting in ("passive", "active"):
        median, longest = (
            float(rows.one(found, quantity=f"{which}, {waiting}")["value"])
            for which in ("median", "longest")
        )
        told.append(f"{median:.1f} s where threads wait {waiting}ly (the longest {longest:.1f} s)")
    return rows.prose(
        f"The command takes {' and '.join(told)}, import included, for {found[0]['samples']} pictures in "
        f"{found[0]['calls']} calls.",
        rows.origin(*found, command=f"{COMMAND} time"),
    )


def seconds(same: list[Row]) -> float:
    """Milliseconds of a sample."""
    row = rows.one(same, quantity="seconds")
    return 1e3 * float(row["value"]) / int(row["samples"])


def figure(same: list[Row], quantity: str) -> str:
    """A figure with its 95 %."""
    row = rows.one(same, quantity=quantity)
    return f"{float(row['value']):.2f} ± {Z * float(row['spread']):.2f}"


def _figures(same: list[Row]) -> list[str]:
    nearest = float(rows.one(same, quantity="nearest, samples")["value"])
    return [*(figure(same, name) for name in ("found", "accuracy", "diversity")), f"{nearest:.2f}"]


def _origin(found: list[Row]) -> str:
    return rows.prose(rows.origin(*found, command=COMMAND))
