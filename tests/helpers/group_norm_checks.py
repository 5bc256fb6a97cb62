"""group_norm of a backend against its definition, and the memory around what it writes."""

from dataclasses import replace

import group_norm_cases as cases
import torch
from accuracy import assert_accurate
from memory import same

SMALL = [(), (1,), (5,), (3, 5), (8, 8), (2, 3, 4)]


def untouched(got, args):
    """The memory around what a launch writes, and all that it only reads."""
    for name, tensor in vars(args).items():
        if not isinstance(tensor, torch.Tensor):
            continue
        mine, theirs = getattr(got, name).cpu(), tensor
        if name in ("out", "summed"):
            mine, theirs = (t.clone() for t in (_whole(mine), _whole(theirs)))
            for memory, view in ((mine, tensor), (theirs, tensor)):
                torch.as_strided(memory, view.shape, view.stride(), view.storage_offset()).zero_()
        else:
            mine, theirs = _whole(mine), _whole(theirs)
        assert same(mine, theirs), name


def _whole(view):
    return cases.base_of(view)


def check(backend, seed, device="cpu", **how):
    args = cases.make(seed, **how)
    plain, exact = cases.expected(args)
    got, again = cases.run(backend, args, device), cases.run(backend, args, device)
    assert_accurate(got.out.cpu(), plain[0], exact[0])
    assert same(got.out, again.out)
    if args.summed is not None:
        assert_accurate(got.summed.cpu(), plain[1], exact[1])
    if device == "cpu":
        untouched(got, args)
    first = cases.run(backend, _sample(args, -1), device)
    assert same(first.out[0], got.out[-1]), "a sample alone has other bits"


def _sample(args, b):
    """The same call for one sample, at its place in memory."""
    batch = args.x.shape[0]
    sliced = {
        name: t[b % batch : b % batch + 1]
        for name, t in vars(args).items()
        if isinstance(t, torch.Tensor) and name not in ("weight", "bias")
    }
    return replace(args, **sliced)
