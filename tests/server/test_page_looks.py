"""The page for everyone: by keyboard, on a phone, in the dark, with a screen reader, with little motion."""

import shutil

import pytest
from optional import needs
from page_cases import browser, expect, served, watched
from page_looks import asked, background, contrast, faint, luminance
from PIL import Image

from benchmarks.pages import serving
from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.zoo import load_network

LINK = "#solver=ddim&steps=4&classes=3 7&seed=5"
BOTH = LINK + "&second=heun 3"


@pytest.fixture(scope="module")
def url():
    with served(
        InProcess({"digits": load_network("digits")}, capacity=4, batch="fixed")
    ) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


def opened(seen, link=LINK):
    seen.page.goto(seen.url + link)
    seen.page.locator("#classes button").first.wait_for()
    return seen.page


def drawn(page):
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("status")).to_contain_text("samples in")


def states(page):
    """The page in each of its states, one after another."""
    yield "empty"
    drawn(page)
    yield "drawn"
    page.locator("#pictures button").first.click()
    yield "a picture"
    page.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
    yield "made again"
    full = {"error": {"message": "the queue is full"}}
    page.route("**/v1/samples", lambda route: route.fulfill(status=429, json=full))
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("alert")).to_have_text("The queue is full.")
    yield "refused"
    page.evaluate("() => document.getElementById('key').showModal()")
    yield "asked for the key"


def test_contrast_and_names(chromium, url):
    with watched(chromium, url, reduced_motion="reduce") as seen:
        seen.allowed.append("429")
        for state in states(page := opened(seen, BOTH)):
            assert asked(page, "faults") == [], state
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert faint(page) == [], (state, scheme)
                ground = luminance(background(asked(page, "texts")[0]["behind"]))
                assert ground > 0.85 if scheme == "light" else ground < 0.05


def test_the_checks_find_what_is_wrong(chromium, url):
    with watched(chromium, url) as seen:
        page = opened(seen)
        page.evaluate("""() => {
          document.querySelector("#status").textContent = "faint";
          document.querySelector("#status").style.color = "#bbbbbb";
          document.querySelector("#steps").parentElement.replaceWith(document.querySelector("#steps"));
          document.querySelector("#seed").style.borderColor = "#dddddd";
          document.querySelector("main").style.width = "1400px";
        }""")
        assert [text for text, _ in faint(page)] == ["faint", "seed"]
        assert any("steps" in fault for fault in asked(page, "faults"))
        assert asked(page, "outside")[-1].endswith(" pixels")
        assert contrast({"colour": "rgb(0, 0, 0)", "behind": ["rgba(0, 0, 0, 0)"]}) == 21


def test_nothing_is_cut_off(chromium, url):
    with watched(chromium, url) as seen:
        seen.allowed.append("429")
        for state in states(page := opened(seen, BOTH)):
            for width in (320, 360, 414, 768, 1024, 2560):
                page.set_viewport_size({"width": width, "height": 740})
                assert asked(page, "outside") == [], (state, width)


def test_on_a_phone_the_samples_are_brought_into_view(chromium, url):
    with watched(chromium, url, width=360, height=640, has_touch=True, is_mobile=True) as seen:
        page = opened(seen)
        drawn(page)
        expect(page.locator(".tile").first).to_be_in_viewport()


def test_by_keyboard_alone(chromium, url):
    with watched(chromium, url) as seen:
        page = opened(seen, LINK.replace("3 7", "3"))
        press, focused = page.keyboard.press, page.locator("*:focus")

        def tab_to(selector, key="Tab"):
            for _ in range(30):
                press(key)
                if focused.evaluate("(e, s) => e.matches(s)", selector):
                    outline = focused.evaluate("(e) => getComputedStyle(e.closest('.button') ?? e)")
                    assert float(outline["outlineWidth"].removesuffix("px")) >= 2, selector
                    assert outline["outlineStyle"] == "solid", selector
                    return
            pytest.fail(f"no way to {selector}")

        tab_to("#solver")
        page.keyboard.type("heun")
        tab_to("#steps")
        press("Control+a")
        page.keyboard.type("3")
        tab_to("#compare")
        press("Space")
        tab_to("#solver2")
        tab_to("#classes button")
        press("ArrowRight")
        press("Space")
        press("End")
        press("Space")
        assert page.locator("#classes [aria-pressed=true]").all_inner_texts() == ["1", "3", "9"]
        press("ArrowRight")  # around to the first
        assert focused.inner_text() == "0"
        tab_to("#guidance")  # the group is one stop
        tab_to("#seed")
        press("Enter")
        expect(page.get_by_role("status")).to_contain_text("6 samples in")
        assert focused.get_attribute("id") == "seed"
        tab_to("#open")
        tab_to("#pictures button")
        press("ArrowRight")
        chosen = focused.get_attribute("id")
        press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        tab_to("#picture-again")
        press("Escape")
        expect(page.get_by_role("dialog")).not_to_be_visible()
        assert focused.get_attribute("id") == chosen
        press("Tab")
        press("Tab")  # out of the page's end: no trap
        tab_to("#cancel", "Shift+Tab")


def test_what_happens_is_said(chromium, url):
    """To a screen reader: in a region that is there from the start, once and not for each row."""
    with watched(chromium, url) as seen:
        page = opened(seen, LINK.replace("steps=4", "steps=50"))
        page.evaluate("""() => {
          window.heard = [];
          const region = document.querySelector("[role=status]");
          const observer = new MutationObserver(() => heard.push(region.textContent));
          observer.observe(region, { childList: true, characterData: true, subtree: true });
        }""")
        drawn(page)
        heard = page.evaluate("() => window.heard.filter(Boolean)")
        assert (
            len(heard) == 2
            and heard[0] == "Drawing 2 samples …"
            and heard[1].startswith("2 samples in")
        )


SHIFTS = """
window.shifts = [];
const note = (list) => shifts.push(...list.getEntries().map((entry) => entry.value));
new PerformanceObserver(note).observe({ type: "layout-shift", buffered: true });
"""


def test_nothing_moves(chromium, url):
    """Neither while the page loads nor while samples form."""
    with watched(chromium, url) as seen:
        seen.page.add_init_script(SHIFTS)
        page = opened(seen, BOTH.replace("steps=4", "steps=60"))
        page.wait_for_timeout(600)  # a shift soon after a press is the press's own
        page.evaluate("() => document.getElementById('settings').requestSubmit()")
        expect(page.get_by_role("status")).to_contain_text("samples in")
        page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))"
        )
        assert sum(page.evaluate("() => window.shifts")) < 0.02


# Rules that move something for whoever said nothing about motion.
MOVES = """() => [...document.styleSheets[0].cssRules]
  .filter((rule) => !(rule.media?.mediaText ?? "").includes("prefers-reduced-motion: no-preference"))
  .filter((rule) => /transition|animation|scroll-behavior/.test(rule.cssText))
  .map((rule) => rule.cssText)"""


def test_little_motion(chromium, url):
    script = "(e) => getComputedStyle(e).transitionDuration"
    with watched(chromium, url) as seen:
        page = opened(seen)
        assert page.evaluate(MOVES) == []
        for motion, seconds in (("no-preference", "0.15s"), ("reduce", "0s")):
            page.emulate_media(reduced_motion=motion)
            assert page.locator("#draw").evaluate(script) == seconds


def test_small_pictures_are_shown_pixel_by_pixel(chromium, url):
    with watched(chromium, url) as seen:
        page = opened(seen)
        drawn(page)
        for image in page.locator(".tile img, #pictures img").all():
            assert image.evaluate("(e) => getComputedStyle(e).imageRendering") == "pixelated"


@pytest.mark.slow
def test_the_picture_of_the_documentation(tmp_path):
    needs("playwright")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    serving.draw(tmp_path / "serving.png")
    assert (tmp_path / "serving.png").stat().st_size <= 200_000
    with Image.open(tmp_path / "serving.png") as made, Image.open(serving.PATH) as committed:
        assert made.size == committed.size
