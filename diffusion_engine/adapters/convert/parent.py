"""A checkpoint of another form into a folder of config.json and model.safetensors."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ... import checks
from ..checkpoint import formats, strict_json
from ..checkpoint.folder import CONFIG, WEIGHTS, config_of

CHILD = "diffusion_engine.adapters.convert.child"
ANSWER = 4 << 20  # bytes of what the process says
SECONDS = 3600.0
# Of the environment it gets what Python needs to start.
KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str | None = None,
    ema: str = "auto",
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    unconfined: bool = False,
) -> dict[str, Any]:
    """Converts a checkpoint into a new folder, which appears whole or not at all; returns a report.

    The file is read in a process of its own that has given up network, other processes, writing and most
    memory, as far as the system has a way to: the report's `limits` say which.

    source  a file of torch.save (.pt, .pth, .pkl, .ckpt), of flax, .npz or .safetensors
    out     the folder, which is not there yet
    format  of the network, a key of `formats.READERS` or `formats.PARTS`; what `config` says
    ema     auto: averages where there are some; none: the weights; or a decay, which the averages must have
    config  a .json file, or its content: the fields that the format's reader takes
    unconfined  read a pickle also where this system cannot keep the process from network and files

    Raises ValueError where the file holds more than tensors (nothing of it is run), cannot be read so, or
    what comes out is no checkpoint of that format.
    """
    path, folder = Path(source).absolute(), Path(out).absolute()
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: give a file")
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"{folder} is there already: name a folder that is not")
    settled = _settled(format, config)
    with _new(folder) as part:
        how = {"ema": ema, "names": _names(settled), "unconfined": unconfined}
        report = _asked(path, part / WEIGHTS, how)
        (part / CONFIG).write_text(json.dumps(settled, indent=2, allow_nan=False) + "\n")
        try:
            formats.check(part)
        except ValueError as error:
            raise ValueError(str(error).replace(part.name, folder.name)) from error
    return {"source": str(path), "format": settled["format"], "folder": str(folder)} | report


def _settled(format: str | None, config: Any) -> dict[str, Any]:
    """What the new config.json holds."""
    if config is None or isinstance(config, Mapping):
        said, about = "config", dict(config or {})
    else:
        said, about = str(config), config_of(Path(config))
    name = format or formats.format_of(about)
    every = formats.READERS | formats.PARTS
    if not isinstance(name, str) or name not in every:
        known = ", ".join(sorted(every))
        given = (
            "no format is said" if name is None else f"the format {checks.said(name)} is unknown"
        )
        raise ValueError(f'{given}: write --format, or "format" in --config; known are {known}')
    if formats.format_of(about) not in (None, name):
        raise ValueError(
            f"{said} says the format {checks.said(formats.format_of(about))}, and --format {name}: leave one "
            "of them out"
        )
    return {"format": name} | about


def _names(config: dict[str, Any]) -> list[str] | None:
    place = formats.PARAMETERS.get(config["format"])
    return list(formats.found(place)(config)) if place else None


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder beside it, which takes its place at the end."""
    part = folder.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.mkdir()
    except OSError as error:
        raise ValueError(f"{folder} cannot be made ({error.strerror}); choose another") from error
    try:
        yield part
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _asked(source: Path, weights: Path, how: dict[str, Any]) -> dict[str, Any]:
    """What the process answers, after it has written the weights. Raises ValueError where it refused."""
    handle = os.open(weights, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    question = {"source": str(source), "handle": handle} | how
    # What it says goes to files, which its own limit bounds, and of which no more than that is read.
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", CHILD], input=json.dumps(question).encode(), stdout=said,
                stderr=errors, env=_environment(), cwd=weights.parent, pass_fds=(handle,),
                timeout=SECONDS, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"{source.name} was not read within {SECONDS:g} s") from None
        finally:
            os.close(handle)
        answer, error = (_read(file) for file in (said, errors))
    if done.returncode:
        raise ValueError(
            f"{source.name} could not be converted: the process {_end(done.returncode, error)}"
        )
    report = strict_json.parsed(answer, "what the process says")
    if "refused" in report:
        said = report["refused"]  # which may quote the file
        raise ValueError(said if said.isprintable() else ascii(said)[1:-1])
    return report


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _read(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(ANSWER)


def _end(code: int, error: bytes) -> str:
    if code == -getattr(signal, "SIGXCPU", 0):
        return "took more of a processor's time than it may"
    last = error.decode(errors="replace").strip().splitlines()[-1:] or ["said nothing"]
    return f"ended with {code} ({last[0][:300]})"
