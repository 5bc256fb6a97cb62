"""How EngineScheduler and the loop do in diffusers' own tests and a step beside its classes, from the rows
of tests/adapters/upstream.py, upstream_pipelines.py and benchmarks.runs.scheduler_steps."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

# What a failure's last line begins with -> what it means.
WHY = {
    "AttributeError": "call a method that only the class itself has",
    "ValueError: step before set_timesteps": "make a step before `set_timesteps`",
    "ValueError: timestep=": "make a step of a timestep that is not the run's",
    "ValueError: the scheduler's configuration": "ask for what is not taken over",
    "ValueError": "are refused otherwise",
}
OTHERS = "have another number"
# What of a failure's last line -> why, of the tests of pipelines.
REASONS = {
    "guidance_scale: the engine": "a callback changes the guidance: refused",
    "the class scheduler_cls": "a subclass of a scheduler, made in the test, whose steps count",
    "asks for vae=": "the scheduler's configuration is that of a whole pipeline: refused",
    "skip_guidance_layers": "skip_guidance_layers: refused",
    "true_cfg_scale": "true_cfg_scale with a negative prompt: refused",
    "Regex pattern did not match": "true_cfg_scale with a negative prompt: refused",
    "object has no attribute": "reads in the pipeline, during a call, at which timestep it is",
    "names 'denoised'": "a callback wants what the pipeline's own steps make: refused",
    "assert False": "asks for the scheduler's class",
}


def upstream() -> str:
    """How many of diffusers' tests pass: those that all schedulers share, and those of each class."""
    found = rows.committed(results.UPSTREAM)
    common, own = (
        [row for row in found if row["part"] == part and row["tests"]]
        for part in ("common", "class")
    )
    body = [[f"`{row['of']}`", row["passed"], row["tests"]] for row in own]
    table = rows.lines(["the file of", "pass", "of"], body)
    failed = [row for row in found if row["part"] == "class" and row["failed"]]
    kinds = [_why(row) for row in failed]
    said = ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in (*WHY.values(), OTHERS) if kind in kinds
    )
    return "\n\n".join(
        [
            rows.prose(
                f"Of the tests that all its schedulers share {_sum(common, 'passed')} of "
                f"{_sum(common, 'tests')} pass, over {len(common)} solvers.",
                f"Of those of the classes' own files {_sum(own, 'passed')} of {_sum(own, 'tests')} do, with "
                f"the class's own solver: of the others, each a row of `benchmarks/results/upstream.csv`, "
                f"{said}.",
            ),
            table,
        ]
    )


def upstream_pipelines() -> str:
    """How many of diffusers' tests of pipelines pass, of those that pass with diffusers as it is."""
    found = rows.committed(results.UPSTREAM_PIPELINES)
    theirs, scheduler, loop = (
        {row["of"]: row for row in found if row["part"] == part and row["tests"]}
        for part in ("theirs", "scheduler", "loop")
    )
    body = [
        [f"`{file}`", own["tests"], own["passed"], loop[file]["passed"]]
        for file, own in scheduler.items()
    ]
    counted, whole = _sum([*loop.values()], "tests"), _sum([*theirs.values()], "tests")
    first = (
        f"Of {whole} fast tests {counted} pass with diffusers as it is, where what they load from its hub "
        f"is made here. Of these {_sum([*scheduler.values()], 'passed')} pass with `EngineScheduler` in "
        f"place of every scheduler, and {_sum([*loop.values()], 'passed')} with every call of a pipeline "
        "made through `accelerate_pipeline`. The others:"
    )
    table = rows.lines(
        ["the file of", "pass with diffusers", "with our scheduler", "our loop"], body
    )
    failed: dict[tuple[str, str], list[str]] = {}
    for row in found:
        if row["failed"] and row["part"] != "theirs":
            test = row["failed"].split("::")[-1]
            failed.setdefault((row["part"], _reason(row["why"])), []).append(test)
    each = [
        [part, str(len(tests)), ", ".join(f"`{test}`" for test in dict.fromkeys(tests)), why]
        for (part, why), tests in failed.items()
    ]
    return "\n\n".join(
        [rows.prose(first), rows.lines(["with our", "tests", "which", "why not"], each), table]
    )


def _reason(why: str) -> str:
    """What a failure of a pipeline's test means."""
    return next((said for part, said in REASONS.items() if part in why), why)


def scheduler_steps() -> str:
    """A step's time on the CPU beside that of diffusers' classes."""
    found = rows.committed(results.STEPS)
    shapes = list(dict.fromkeys(row["shape"] for row in found))
    head = [
        "us a step",
        *(f"{shape}: {who}" for shape in shapes for who in ("diffusers", "here", "share")),
    ]
    body = []
    for (name,), same in rows.grouped(found, "scheduler"):
        cells = []
        for row in same:
            theirs, ours = float(row["theirs_us"]), float(row["ours_us"])
            cells += [f"{theirs:.0f}", f"{ours:.0f}", f"{ours / theirs:.2f}"]
        body.append([f"`{name}`", *cells])
    command = "python -m benchmarks.runs.scheduler_steps"
    return f"{rows.lines(head, body)}\n\n{rows.origin(*found, command=command)}"


def _why(row: Row) -> str:
    return next((said for start, said in WHY.items() if row["why"].startswith(start)), OTHERS)


def _sum(found: list[Row], column: str) -> int:
    return sum(int(row[column]) for row in found)
