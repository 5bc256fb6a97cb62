"""`Client` and `AsyncClient`: the samples of a server."""

from importlib.util import find_spec

if find_spec("httpx") is None:
    raise ImportError(
        "a server's client stands on httpx, which is not installed: pip install 'diffusion-engine[serve]'"
    )

from .awaited import AsyncClient, AsyncRemote, AsyncStream
from .blocking import Client, Remote, Stream
from .errors import ClientError, Failed, GivenUp, Lost, Refused, Silent, Unavailable
from .events import Event
from .samples import Samples

__all__ = [
    "AsyncClient",
    "AsyncRemote",
    "AsyncStream",
    "Client",
    "ClientError",
    "Event",
    "Failed",
    "GivenUp",
    "Lost",
    "Refused",
    "Remote",
    "Samples",
    "Silent",
    "Stream",
    "Unavailable",
]
