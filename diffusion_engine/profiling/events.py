"""What torch.profiler saw, as operators and kernels with their classes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from ..trace import DOMAIN
from .classes import BETWEEN, COPIES, INDUCTOR, PARTS, kernel_class, op_class
from .report import Op

PREFIX = f"{DOMAIN}::"
# Fused ops and the parts of a run, which are ranges to the profiler.
OPERATORS = tuple(PREFIX + name for name in ("group_norm", "attention", *PARTS))


def host_ops(events: Iterable[FunctionEvent]) -> tuple[list[Op], Counter[str]]:
    """The operators inside the ranges `network`, and how many of each class the network called.

    Seconds are an operator's own, without those it called. The time of a network outside of all
    operators is an entry of the class "between ops": Python, and the profiler itself.
    """
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts: Counter[tuple[str, str]] = Counter()
    calls: Counter[str] = Counter()
    for event, kind, begins in _walk(e for e in events if e.name == PREFIX + "network"):
        key = (event.name, kind) if kind != BETWEEN else (BETWEEN, BETWEEN)
        seconds[key] += event.self_cpu_time_total * 1e-6
        counts[key] += 1
        calls[kind] += begins
    return _ops(seconds, counts), calls


def device_ops(events: Iterable[FunctionEvent]) -> tuple[list[Op], float]:
    """The kernels and copies of the GPU, and the seconds in which at least one of them ran."""
    events = list(events)
    launchers: dict[int, str | None]
    roots = (e for e in events if e.device_type == DeviceType.CPU and e.cpu_parent is None)
    # Calls of CUDA's runtime stand in the tree, too: their numbers are CUDA's, not those of a link.
    launchers = {event.id: kind for event, kind, _ in _walk(roots) if "::" in event.name}
    launchers[0] = None  # a link to nothing
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts: Counter[tuple[str, str]] = Counter()
    spans = []
    for event in events:
        # The GPU's side of a range covers the kernels in it a second time.
        if event.device_type == DeviceType.CPU or event.is_user_annotation:
            continue
        key = event.name, kernel_class(event.name, launchers.get(event.linked_correlation_id))
        spans.append((event.time_range.start, event.time_range.end))
        seconds[key] += (event.time_range.end - event.time_range.start) * 1e-6
        counts[key] += 1
    return _ops(seconds, counts), _covered(spans) * 1e-6


def moves(op: Op) -> bool:
    """Whether an entry of `device_ops` is a copy engine's, not a kernel."""
    return op.kind == COPIES and op.name.lower().startswith(("memcpy", "memset"))


def _walk(roots: Iterable[FunctionEvent]) -> Iterator[tuple[FunctionEvent, str, bool]]:
    """(event, class, whether the class begins with it) of everything in the events given."""
    waiting: list[tuple[FunctionEvent, str | None]] = [(event, None) for event in roots]
    while waiting:
        event, caller = waiting.pop()
        kind = op_class(event.name, caller) if _is_operator(event) else caller
        yield event, kind or BETWEEN, kind is not None and kind != caller
        waiting += [(child, kind) for child in event.cpu_children]


def _is_operator(event: FunctionEvent) -> bool:
    """Whether this is more than a named stretch of time, such as a user's or torch.compile's."""
    if event.is_user_annotation:
        return event.name in OPERATORS
    return " " not in event.name or INDUCTOR in event.name


def _ops(seconds: dict[tuple[str, str], float], counts: Counter[tuple[str, str]]) -> list[Op]:
    made = [Op(name, kind, counts[name, kind], taken) for (name, kind), taken in seconds.items()]
    return sorted(made, key=lambda op: -op.seconds)


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of intervals: kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
