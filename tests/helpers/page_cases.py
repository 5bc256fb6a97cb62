"""A server with its page, and a browser that notes what the page does."""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from optional import needs
from server_cases import on_socket

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
HOST = "127.0.0.1"
PATIENCE = 30_000  # milliseconds, for what a busy machine does late
# What the page's policy forbids, told by the browser itself.
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@contextmanager
def served(*given, **settings):
    """The address of the page of a server on a Service."""
    with on_socket(*given, **settings) as address:
        yield f"{address}/"


def program():
    """The browser; skips where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("chromium is not installed")
    return found


@contextmanager
def browser():
    """A browser without a window, that finds no host but this one."""
    playwright = needs("playwright.sync_api")
    path = program()
    alone = f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}"
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=path, args=[alone])
        try:
            yield running
        finally:
            running.close()


def expect(what):
    """Playwright's, with patience for a busy machine."""
    made = needs("playwright.sync_api").expect
    made.set_options(timeout=PATIENCE)
    return made(what)


@dataclass
class Watched:
    """A page of a browser, and what it did.

    complaints  of the console, and errors that nobody caught
    requests    addresses that were asked for
    allowed     parts of complaints that a test expects: Chromium notes each refusal
    """

    page: object
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def check(self):
        """Nothing was complained of, nothing was asked of others, and nothing that was forbidden tried."""
        with suppress(Exception):  # the page is gone
            self.complaints += self.page.evaluate("() => window.violations ?? []")
        left = [c for c in self.complaints if not any(part in c for part in self.allowed)]
        assert not left
        own = (self.url, "blob:" + self.url, "data:image/png;base64,")
        assert not [address for address in self.requests if not address.startswith(own)]


@contextmanager
def watched(running, url, width=1280, height=860, **options):
    """A page of a fresh profile, checked at the end."""
    context = running.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(VIOLATIONS)
    try:
        made = Watched(context.new_page(), url)
        page = made.page
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        page.on("request", lambda request: made.requests.append(request.url))
        page.on(
            "console",
            lambda m: made.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        yield made
        made.check()
    finally:
        context.close()
