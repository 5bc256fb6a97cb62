"""The site of docs/ builds without a warning, its links lead somewhere, and it loads nothing from afar."""

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from optional import needs

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Parsed(HTMLParser):
    """The anchors of a page, where its links lead, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loads, self.classes = {""}, [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.classes |= set((given.get("class") or "").split())
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get(LOADS.get(tag)) and given.get("rel") != "canonical":
            self.loads.append(given[LOADS[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What the strict build writes, of a copy of the sources, so that it writes beside them."""
    needs("zensical")
    needs("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    for path in [ROOT / "zensical.toml", *ROOT.glob("*.md")]:
        shutil.copy(path, folder)
    for name in ("diffusion_engine", "kernels", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0 and "warning" not in said.lower(), said
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Parsed(path) for path in sorted(site.rglob("*.html"))}


def navigated(entries):
    for entry in entries:
        for value in entry.values():
            yield from navigated(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_once():
    settings = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    listed = sorted(navigated(settings["nav"]))
    assert listed == [str(page.relative_to(ROOT / "docs")) for page in PAGES]


def test_every_page_is_built(site, pages):
    for page in PAGES:
        name = page.relative_to(ROOT / "docs").with_suffix("")
        built = site / name.parent / ("" if name.name == "index" else name.name) / "index.html"
        assert built in pages


def test_every_link_leads_to_an_anchor_of_a_page(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            where, fragment = urldefrag(link)
            if urlsplit(link).scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(urlsplit(where).path)).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(fragment) not in known:
                broken.append((str(path.relative_to(site)), link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site, pages):
    away = [load for page in pages.values() for load in page.loads if urlsplit(load).netloc]
    assert away == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text()), sheet
    # The theme's program fetches what draws these.
    assert not any(page.classes & {"mermaid", "arithmatex"} for page in pages.values())


def test_no_markup_is_left_over(pages):
    """What the site's Markdown does not know stays as it is written: references that no page defines, and in
    a paragraph lists, tables and fences, which need an empty line before them."""
    for path in pages:
        text = re.sub(r"<(script|pre|code).*?</\1>", "", path.read_text(), flags=re.DOTALL)
        left = re.findall(r"\]\[[\w-]+\]|8&lt;--|^:::.*|```", text, re.MULTILINE)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            left += re.findall(r"^\s*(?:[-*+] |\d+\. |\|).*", paragraph, re.MULTILINE)
        assert left == [], path
