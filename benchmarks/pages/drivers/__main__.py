"""Writes docs/drivers/NAME.png: python -m benchmarks.pages.drivers NAME, or several; without a name all."""

from __future__ import annotations

import argparse
import pkgutil
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs" / "drivers"
NAMES = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name[0] != "_"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    chosen = parser.parse_args().names or NAMES
    if unknown := [name for name in chosen if name not in NAMES]:
        parser.error(f"there is no picture {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for name in chosen:
        path = DOCS / f"{name}.png"
        import_module(f"{__package__}.{name}").draw(path)
        print(f"wrote {path}, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
