"""What a process that reads a checkpoint gives up before it does."""

from __future__ import annotations

from contextlib import suppress

from .system_calls import give_up

with suppress(ImportError):  # Windows has no such limits
    import resource

GIB = 1 << 30


def limit(size: int) -> tuple[list[str], str | None]:
    """Sets the limits of this process for a file of that many bytes.

    Says which hold, a line each, and why system calls are not given up, None where they are.
    """
    said = []
    try:
        memory = _lowered(resource.RLIMIT_DATA, 3 * size + GIB)
        seconds = _lowered(resource.RLIMIT_CPU, 120 + 60 * size // GIB)
        written = _lowered(resource.RLIMIT_FSIZE, size + (64 << 20))
        _lowered(resource.RLIMIT_CORE, 0)
        said.append(
            f"at most {memory >> 20} MiB of memory, {seconds} s of a processor, {written >> 20} MiB written"
        )
    except (NameError, OSError, ValueError) as error:
        said.append(f"memory, time and files not limited ({error})")
    objection = give_up()
    said.append(
        "no network, no other process, no file changed but the one it writes"
        if objection is None
        else f"network, processes and files not closed off: {objection}"
    )
    return said, objection


def _lowered(kind: int, most: int) -> int:
    """Sets a limit, or leaves it as low as it is: none can be raised."""
    hard = resource.getrlimit(kind)[1]
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))
    return least
