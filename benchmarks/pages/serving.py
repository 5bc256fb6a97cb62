"""docs/serving.png, the page of a server that draws digits: python -m benchmarks.pages.serving.

It needs chromium and playwright's package, which the extra `test` has.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from PIL import Image

PATH = Path("docs/serving.png")
SIZE = {"width": 1280, "height": 800}
SCALE = 1.5  # pixels of the picture for one of the page
COLOURS = 128
# Few steps, so that the two differ.
LINK = "#solver=dpmpp_2m&steps=6&second=ddim 6&guidance=2&seed=21"
START = 120.0  # seconds


@contextmanager
def served() -> Iterator[str]:
    """The address of a server that ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready"
        words = ["-m", "diffusion_engine.cli", "serve", "--model", "digits", "--port", "0"]
        server = subprocess.Popen([sys.executable, *words, "--ready-file", str(ready)])
        try:
            until = time.monotonic() + START
            while not ready.exists():
                if server.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("the server does not start")
                time.sleep(0.1)
            yield json.loads(ready.read_text())["address"]
        finally:
            server.terminate()
            server.wait()


def draw(path: Path) -> None:
    """Two solvers beside each other, and what they made in the gallery."""
    from playwright.sync_api import expect, sync_playwright

    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"))
        page = browser.new_page(
            viewport=SIZE, device_scale_factor=SCALE, color_scheme="light", reduced_motion="reduce"
        )
        page.on("dialog", lambda dialog: dialog.accept())  # whether to clear the gallery
        page.goto(f"{address}/{LINK}")
        for _ in range(2):  # what the first request of a server costs is not shown
            page.locator("#classes button").first.wait_for()
            page.get_by_role("button", name="Draw").click()
            expect(page.get_by_role("status")).to_contain_text("samples in", timeout=60_000)
            expect(page.locator("#seats")).to_have_text("0 of 16", timeout=60_000)
            kept = page.screenshot()
            page.get_by_role("button", name="Clear").click()
        browser.close()
    picture = Image.open(io.BytesIO(kept)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    draw(PATH)
