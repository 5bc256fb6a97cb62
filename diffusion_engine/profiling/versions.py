"""The versions of the packages that decide what runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("diffusion-engine", "torch", "triton", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Those of PACKAGES that are installed here."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
