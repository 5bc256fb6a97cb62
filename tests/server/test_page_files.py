"""The files of the page: served as they are, under a strict policy, and in what is installed."""

import re
from pathlib import Path

import pytest
from optional import needs
from server_cases import KEY, WITH_KEY, error_of, with_client
from setup_file import ROOT, setup_py

from diffusion_engine.server.routes import page

FOLDER = Path(page.__file__).parents[1] / "page"
NAMES = sorted(path.name for path in FOLDER.iterdir())


def answers(*asked, **settings):
    """What a server answers to (path, headers)."""
    found = []

    async def ask(client):
        for path, headers in asked:
            found.append(await client.get(path, headers=headers))

    with_client(ask, **settings)
    return found


def test_every_file_is_served_as_it_is():
    for name, answer in zip(
        NAMES, answers(*((f"/page/{name}", {}) for name in NAMES)), strict=True
    ):
        assert answer.status_code == 200 and answer.content == (FOLDER / name).read_bytes()
        assert answer.headers["content-type"] == page.TYPES[Path(name).suffix]
        assert answer.headers["x-content-type-options"] == "nosniff"
    (answer,) = answers(("/", {}))
    assert answer.content == (FOLDER / "index.html").read_bytes()


def test_the_policy_lets_nothing_else_in():
    (answer,) = answers(("/", {}))
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert (
        policy.pop("script-src") == policy.pop("style-src") == policy.pop("connect-src") == "'self'"
    )
    assert policy.pop("img-src") == "'self' blob: data:"
    assert (
        policy.pop("base-uri")
        == policy.pop("form-action")
        == policy.pop("frame-ancestors")
        == "'none'"
    )
    assert policy == {"require-trusted-types-for": "'script'", "trusted-types": "'none'"}
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_it_is_asked_for_again_and_not_sent_again():
    (first,) = answers(("/page/page.js", {}))
    again, changed = answers(
        ("/page/page.js", {"if-none-match": first.headers["etag"]}),
        ("/page/page.js", {"if-none-match": '"another"'}),
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "name",
    ["nothing.js", "..%2f__init__.py", "%2e%2e/app.py", "..%2f..%2fworkers", "page.js%00", ""],
)
def test_nothing_else_is_a_file(name):
    (answer,) = answers((f"/page/{name}", {}))
    error_of(answer, 404)


def test_the_page_asks_for_no_key_and_nothing_beside_it_is_open():
    files = answers(*((path, {}) for path in ("/", "/page/page.js")), key=KEY)
    assert [answer.status_code for answer in files] == [200, 200]
    paths = ("/pages", "/page", "/page%2f..%2fv1%2fmodels", "/page/../v1/models", "/index.html")
    for answer in answers(*((path, {}) for path in paths), key=KEY):
        assert answer.status_code in (401, 404), answer.url
    known = answers(*((path, {}) for path in ("/v1/models", "/metrics", "/version")), key=KEY)
    assert [answer.status_code for answer in known] == [401] * 3
    assert answers(("/v1/models", WITH_KEY), key=KEY)[0].status_code == 200


def test_it_holds_no_script_or_style_of_its_own_and_no_other_host():
    for name in NAMES:
        text = (FOLDER / name).read_text()
        hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
        assert hosts <= {"http://www.w3.org/2000/svg"}, name
        if name.endswith(".html"):
            assert not re.search(
                r"<style|<script(?! type=\"module\" src=)|\son\w+=|style=|javascript:", text
            )
        if name.endswith(".js"):
            risky = (
                r"(inner|outer)HTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser"
            )
            assert not re.search(risky, text), name


def test_every_module_that_is_imported_is_there():
    for name in NAMES:
        for other in re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text()):
            assert other in NAMES, f"{name} imports {other}"
    used = {
        other
        for n in NAMES
        for other in re.findall(r'[/"]([\w-]+\.(?:js|css|svg))"', (FOLDER / n).read_text())
    }
    assert used == {name for name in NAMES if name != "index.html"}


def test_each_is_a_file_that_is_read_in_one_go():
    for name in NAMES:
        if name.endswith(".js"):
            assert (FOLDER / name).read_text().count("\n") <= 300, name


def test_each_is_installed(monkeypatch):
    """What setuptools takes into a wheel, and so into the source distribution that it is made of."""
    needs("setuptools")
    from setuptools import Distribution
    from setuptools.command.build_py import build_py

    monkeypatch.chdir(ROOT)
    packages, package_dir = setup_py.package_layout(ROOT)
    about = {"packages": packages, "package_dir": package_dir, "package_data": setup_py.DATA}
    build = build_py(Distribution(about))
    build.ensure_finalized()
    found = {
        name
        for package, _, _, names in build.data_files
        for name in names
        if package.endswith(".page")
    }
    assert found == set(NAMES)
