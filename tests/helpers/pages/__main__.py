"""python tests/helpers/pages PAGE.md ...: what is wrong with pages, by the package of their checkout."""

import os
import sys
import time
from pathlib import Path

HELPERS = Path(__file__).resolve().parents[1]


def main(paths: list[str]) -> int:
    root = next(p for p in Path(paths[0]).resolve().parents if (p / "pyproject.toml").is_file())
    sys.path[:1] = [str(root), str(HELPERS), str(HELPERS.parent)]  # in place of this folder
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from pages import names
    from pages.blocks import Page, PageError
    from pages.runs import run

    faults = []
    for path in paths:
        page, began = Page.at(Path(path)), time.perf_counter()
        try:
            faults += names.faults(page)
            run(page)
        except PageError as error:
            faults.append(str(error))
        print(f"{page.name}: {time.perf_counter() - began:.1f} s")
    print("\n".join(faults) or "nothing is wrong")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
