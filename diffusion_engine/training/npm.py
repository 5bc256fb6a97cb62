"""Packages of the npm registry, fetched once and kept under the user's cache folder."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..choices.kept import folder

SECONDS = 600  # that npm may take for one package


def package(name: str, version: str, sha512: str) -> Path:
    """The .tgz of a package, fetched with npm where it is not kept yet.

    sha512  of the file, in base64, as the registry says it: dist.integrity without its "sha512-"

    Raises ValueError where npm is missing or cannot fetch it, or the file is another, and says what to do.
    """
    kept = folder() / "npm"
    path = kept / f"{name}-{version}.tgz"
    if path.is_file():
        return _checked(path, sha512)
    command = ["npm", "pack", f"{name}@{version}", "--silent", "--ignore-scripts"]
    if shutil.which("npm") is None:
        raise ValueError(
            f"the images come with the npm package {name}, and there is no npm; install Node.js, or put what "
            f"`{' '.join(command)}` writes elsewhere at {path}"
        )
    kept.mkdir(parents=True, exist_ok=True)
    # Renamed within one folder, a file appears whole or not at all.
    with tempfile.TemporaryDirectory(dir=kept) as part:
        try:
            subprocess.run(
                command, cwd=part, check=True, capture_output=True, text=True, timeout=SECONDS
            )
            next(Path(part).glob("*.tgz")).replace(path)
        except (subprocess.SubprocessError, OSError, StopIteration) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise ValueError(
                f"npm could not fetch {name}@{version} ({said[-1] if said else 'it wrote nothing'}); try "
                f"`{' '.join(command)}` by hand, and put the file at {path}"
            ) from error
    return _checked(path, sha512)


def _checked(path: Path, sha512: str) -> Path:
    """The path itself. Raises ValueError where what lies there has another checksum."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if digest != base64.b64decode(sha512):
        raise ValueError(
            f"{path} is damaged, or another file than the registry's; delete it, and it is fetched again"
        )
    return path


def read(path: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The content of the files of a package, by their paths within it.

    Raises ValueError where one is not there.
    """
    left, made = set(wanted), {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            inner = member.name.partition("/")[2]
            if inner in left and (file := archive.extractfile(member)) is not None:
                made[inner] = file.read()
    if missing := sorted(left - made.keys()):
        raise ValueError(f"{path} lacks {', '.join(missing[:3])}")
    return made
