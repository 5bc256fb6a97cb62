"""By what a recipe's network was computed, and whether it is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..backends import machine
from ..executors.threads import written
from . import named
from .spec import Recipe

NEARLY = "for samples that are nearly the same, give the recipe with network_form None"


def formed(recipe: Recipe, how: Mapping[str, Any]) -> dict[str, Any]:
    """How to run what a recipe was made with. Raises ValueError where that cannot be here."""
    form, how = recipe.network_form, dict(how)
    if how.get("executor") == "auto":  # which came to the recipe's: nothing is measured again
        del how["executor"]
    if how.get("threads") is None and how.get("executor", "eager") in ("eager", *named.COMPUTING):
        how["threads"] = recipe.threads
    if form is None:
        return how
    kind, _, rest = form.partition("/")
    if kind == "accelerate":
        if how.get("accelerate", True) is True:
            how["accelerate"] = rest.partition("/")[2]
        return how
    if "executor" in how:
        return how
    if reason := _missing(kind, recipe.dtype):
        raise ValueError(f"the recipe's network was computed by {form}, and {reason}; {NEARLY}")
    return {**how, "executor": kind}


def _missing(kind: str, dtype: str) -> str | None:
    """Why an executor is not here, as a sentence; None where it is."""
    here = machine.bf16()
    if dtype == "bfloat16" and not here.kind:
        return here.reason
    try:
        made = named.executor(kind, dtype=getattr(torch, dtype))
    except (ValueError, ImportError) as error:
        return str(error)
    return made.objection(torch.device("cpu"))


def check_form(recipe: Recipe, form: str | None) -> None:
    """Raises ValueError where the network is computed in another form than a recipe's."""
    if recipe.network_form in (None, form):
        return
    here = f"by {form}" if form else "by torch"
    kind, version, *_ = f"{recipe.network_form}/".split("/")
    with_it = ", without an executor"
    if kind in named.PROVIDERS:
        with_it = f" with {kind}=={version}{with_it}"
    raise ValueError(
        f"the recipe's network was computed by {recipe.network_form} and is computed {here} here, whose "
        f"sums have another order: replay it on such a machine{with_it}; {NEARLY}"
    )


def check_threads(recipe: Recipe, threads: int | Mapping[str, int] | None) -> None:
    """Raises ValueError where the network runs on other numbers of threads than a recipe's, and its bits may
    depend on them: of what is replayed natively, or was accelerated, none do.

    threads  on which it runs
    """
    known = written(recipe.threads)
    if (recipe.network_form or "").partition("/")[0] in ("native", "accelerate"):
        return
    if known not in (None, threads):
        here = "torch's own number" if threads is None else _threads(threads)
        raise ValueError(
            f"the recipe's network ran on {_threads(known)} and runs on {here} here, where sums may have "
            "another order: replay it without executor and threads; for samples that are nearly the same, "
            "give the recipe with threads None"
        )


def _threads(known: Any) -> str:
    if isinstance(known, int):
        return f"{known} thread{'s' * (known > 1)}"
    each = ", ".join(f"{count} for {entries}" for entries, count in known.items())
    return f"threads by the entries of a call ({each})"
