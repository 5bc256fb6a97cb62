"""What a process that reads a checkpoint gives up before it does."""

from __future__ import annotations

from contextlib import suppress

from .system_calls import give_up

with suppress(ImportError):  # Windows has no such limits
    import resource

GIB = 1 << 30


def limit(size: int) -> list[str]:
    """Sets the limits of this process for a file of that many bytes, and says which hold, a line each."""
    memory, seconds, written = 3 * size + GIB, 120 + 60 * size // GIB, size + (64 << 20)
    said = []
    try:
        for kind, most in (
            (resource.RLIMIT_DATA, memory),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, written),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(kind, (most, most))
        said.append(
            f"at most {memory >> 20} MiB of memory, {seconds} s of a processor, {written >> 20} MiB written"
        )
    except (NameError, OSError, ValueError) as error:
        said.append(f"memory, time and files not limited ({error})")
    objection = give_up()
    said.append(
        "no network, no other process, no file opened to be written"
        if objection is None
        else f"network, processes and files not closed off: {objection}"
    )
    return said
