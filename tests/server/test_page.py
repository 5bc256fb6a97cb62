"""The page in a browser: samples are drawn, compared, given up, kept, and made again from their pictures."""

import base64
import io
import json
import zipfile
from pathlib import Path

import pytest
import text_cases
from page_cases import browser, expect, served, watched
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.zoo import load_network

KEY = "a-key-that-is-long-enough"
LONG = 1000  # steps: nobody waits for their end


@pytest.fixture(scope="module")
def network():
    return load_network("digits")


@pytest.fixture(scope="module")
def url(network):
    with served(InProcess({"digits": network}, capacity=4, batch="fixed")) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def seen(chromium, url):
    with watched(chromium, url) as made:
        yield made


def opened(seen, **settings):
    """The page with settings of a link, when it is ready."""
    given = {"solver": "ddim", "steps": 4, "classes": "3 7", "seed": 5} | settings
    link = "&".join(f"{name}={value}" for name, value in given.items())
    seen.page.goto(f"{seen.url}#{link}")
    seen.page.locator("#classes button").first.wait_for()
    return seen.page


def drawn(page, said="samples in"):
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("status")).to_contain_text(said)


def shown(page):
    """The files that the tiles show."""
    sources = [tile.get_attribute("src") for tile in page.locator(".tile img").all()]
    return [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]


KEPT = """async () => {
  const { all } = await import("/page/kept.js");
  const found = (await all()).sort((a, b) => b.id - a.id);
  return Promise.all(found.map(async ({ blob }) => [...new Uint8Array(await blob.arrayBuffer())]));
}"""


def kept(page):
    """The files of the gallery, in its order."""
    return [bytes(content) for content in page.evaluate(KEPT)]


def picture(content):
    return Image.open(io.BytesIO(content))


def replayed(network, page):
    """What the recipes in the tiles' files make, each by itself, as pixels."""
    made = [Sampler.replay(network, recipe_of(content)).samples[0] for content in shown(page)]
    levels = [(sample * 127.5 + 127.5).round().clamp(0, 255).to(int) for sample in made]
    return [bytes(level.flatten().tolist()) for level in levels]


def pixels(page):
    return [picture(content).tobytes() for content in shown(page)]


def recipe_of(content):
    return json.loads(picture(content).text["diffusion_engine"])


def methods(page):
    """(solver, steps, seed, class, guidance) of the tiles' files."""
    recipes = map(recipe_of, shown(page))
    return [
        (
            r["solver"]["name"],
            len(r["points"]) - 1,
            *r["seeds"],
            *(r["condition"] or [None]),
            *r["guidance"],
        )
        for r in recipes
    ]


FORMING = """() => {
  window.formed = {};
  const note = () => {
    for (const tile of document.querySelectorAll("[data-state=forming]")) {
      const { alt, src } = tile.querySelector("img");
      const { position } = tile.querySelector("progress");
      if (alt) (formed[alt] ??= []).push([src.length, position]);
    }
  };
  const how = { subtree: true, childList: true, attributes: true };
  new MutationObserver(note).observe(document.getElementById("stage"), how);
}"""


def test_samples_appear_as_they_form(seen, network):
    page = opened(seen, steps=20, count=2)
    page.evaluate(FORMING)
    drawn(page, "4 samples in")
    pairs = [(3, 5), (7, 5), (3, 6), (7, 6)]
    formed = page.evaluate("() => window.formed")
    assert set(formed) == {f"{label}, seed {seed}, as it forms" for label, seed in pairs}
    for looks in formed.values():
        positions = [position for _, position in looks]
        assert positions == sorted(positions) and len({*positions}) > 3
        assert len({size for size, _ in looks}) > 3  # other pictures
    assert page.locator("figcaption").all_inner_texts() == [f"{a} seed {b}" for a, b in pairs]
    assert page.locator(".facts dd").first.inner_text() == "20"
    assert methods(page) == [("ddim", 20, seed, label, 2.0) for label, seed in pairs]
    assert pixels(page) == replayed(network, page)


def test_two_solvers_beside_each_other_have_the_same_seeds(seen, network):
    page = opened(seen, second="heun 3", guidance=2)
    drawn(page, "4 samples in")
    sides = page.get_by_role("article")
    assert sides.get_by_role("heading").all_inner_texts() == ["ddim", "heun"]
    captions = [side.locator("figcaption").all_inner_texts() for side in sides.all()]
    assert captions[0] == captions[1] == ["3 seed 5", "7 seed 5"]
    calls = [side.locator("dd").first.inner_text() for side in sides.all()]
    assert calls == ["4", "5"]
    assert all(side.locator("dd").nth(1).inner_text().endswith("s") for side in sides.all())
    both = [("ddim", 4, 5), ("heun", 3, 5)]
    assert methods(page) == [(*method, label, 2.0) for method in both for label in (3, 7)]
    assert pixels(page) == replayed(network, page)
    boxes = [side.bounding_box() for side in sides.all()]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"] and boxes[0]["y"] == boxes[1]["y"]


def test_cancel_frees_the_seats(seen):
    page = opened(seen, steps=LONG)
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("[data-state=forming] img[src]")).to_have_count(2)
    expect(page.locator("#seats")).to_have_text("2 of 4")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
    expect(page.locator("[data-state=stopped]")).to_have_count(2)
    expect(page.locator("#seats")).to_have_text("0 of 4")
    expect(page.locator("#running")).to_have_text("0")
    assert page.locator("#pictures button").count() == 0


def test_drawing_again_gives_up_what_is_drawn(seen):
    page = opened(seen, steps=LONG)
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("[data-state=forming]")).to_have_count(2)
    page.get_by_label("Steps", exact=True).fill("3")
    drawn(page, "2 samples in")
    assert page.locator(".facts dd").first.inner_text() == "3"
    expect(page.locator("#seats")).to_have_text("0 of 4")


def test_a_picture_is_made_again_from_itself(seen, network, tmp_path):
    page = opened(seen, solver="dpmpp_2m_sde", steps=6, seed=2**64 - 2, guidance=1.5)
    drawn(page)
    content = kept(page)[0]
    recipe = recipe_of(content)
    assert recipe["seeds"] == [2**64 - 2] and recipe["condition"] == [3]

    page = opened(seen)  # another link
    assert page.locator("#solver").input_value() == "ddim"
    file = {"name": "a.png", "mimeType": "image/png", "buffer": content}
    page.get_by_label("Open a PNG").set_input_files(file)
    expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
    assert page.locator("#solver").input_value() == "dpmpp_2m_sde"
    assert page.locator("#seed").input_value() == str(2**64 - 2)
    assert (
        page.locator("#steps").input_value() == "6"
        and page.locator("#guidance").input_value() == "1.5"
    )
    assert page.locator("#classes [aria-pressed=true]").all_inner_texts() == ["3"]
    assert pixels(page) == [picture(content).tobytes()]

    changed = picture(content)
    changed.putpixel((5, 5), changed.getpixel((5, 5)) ^ 64)
    drop(page, png(changed, recipe), "changed.png")
    expect(page.get_by_role("heading", name="The picture")).to_be_visible()
    said = "The same pixels: no. 1 of 1,024 values differ, by 64 of 255 at most."
    expect(page.get_by_text(said)).to_be_visible()


def test_a_sheet_of_the_command_line_is_made_again(seen, network, tmp_path):
    page = opened(seen)
    drawn(page)
    size = recipe_of(shown(page)[0])["bucket"]  # of this server's calls
    sampler = Sampler(network, "heun", steps=3, grid="karras")
    result = sampler.sample(seeds=[2**60, 4, 9], condition=[1, 2, 1], bucket=size)
    files.write(tmp_path / "sheet.png", result)
    drop(page, (tmp_path / "sheet.png").read_bytes(), "sheet.png")
    expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
    expect(page.locator("#pictures button")).to_have_count(5)
    assert [seed for _, _, seed, _, _ in methods(page)] == [2**60, 4, 9]


def png(image, recipe, **how):
    """A picture with a recipe, or with any text."""
    about, made = PngInfo(), io.BytesIO()
    said = recipe if isinstance(recipe, str) else json.dumps(recipe)
    (about.add_itxt if how.pop("international", False) else about.add_text)(
        "diffusion_engine", said, **how
    )
    image.save(made, "PNG", pnginfo=about)
    return made.getvalue()


DROP = """([bytes, name]) => {
  const given = new DataTransfer();
  const how = { bubbles: true, cancelable: true };
  given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { ...how, dataTransfer: given }));
}"""


def drop(page, content, name):
    page.evaluate(DROP, [list(content), name])


GRAY = Image.new("L", (32, 32), 7)
RECIPE = {
    "format": "diffusion-engine-recipe/2", "network": "digits", "points": [[1.0, 0.1, 0.9], [0.0, 1.0, 0.0]],
    "seeds": [1], "condition": [1], "guidance": [1.0], "compose": None, "needs": [],
    "solver": {"name": "ddim", "options": {}},
}  # fmt: skip


def plain(image):
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()


BAD = [
    (plain(GRAY), "carries no recipe"),
    (b"GIF89a", "no PNG"),
    (b"", "no PNG"),
    (png(GRAY, RECIPE)[:-30], "cut off or damaged"),
    (png(GRAY, RECIPE)[:20], "cut off or damaged"),
    (png(GRAY, "{"), "not a recipe"),
    (png(GRAY, "null"), "not a recipe"),
    (png(GRAY, RECIPE | {"seeds": []}), "not a recipe"),
    (png(GRAY, RECIPE | {"condition": 3}), "not a recipe"),
    (png(GRAY, RECIPE | {"network": None}), "not a recipe"),
    (png(GRAY, RECIPE | {"seeds": [1] * 1025}), "more than fit on this page"),
    (png(GRAY, RECIPE | {"compose": [[1, 2]]}), "composes several conditions"),
    (png(GRAY, RECIPE | {"format": "diffusion-engine-recipe/9"}), "another version"),
    (png(GRAY, RECIPE | {"needs": ["x", "mask"]}), "more than a picture holds: x, mask"),
    (png(GRAY, RECIPE | {"network": "faces"}), "of the model “faces”, which is not served here"),
    (png(GRAY, RECIPE, zip=True).replace(b"engine\0\0x", b"engine\0\0y"), "damaged"),
]  # fmt: skip


def test_a_bad_file_gets_a_sentence(seen):
    page = opened(seen)
    for content, said in BAD:
        page.evaluate("() => { document.getElementById('problem').textContent = ''; }")
        drop(page, content, "bad.png")
        expect(page.get_by_role("alert")).to_contain_text(said)
        assert page.get_by_role("alert").inner_text().endswith(".")
    drawn(page)  # the page goes on


def test_texts_of_each_kind_are_read(seen):
    page = opened(seen)
    script = """async (bytes) => {
      const { chunks, text } = await import("/page/png.js");
      return text(chunks(new Uint8Array(bytes)), "diffusion_engine");
    }"""
    for how in ({}, {"zip": True}, {"international": True}, {"international": True, "zip": True}):
        assert page.evaluate(script, list(png(GRAY, "the text", **how))) == "the text", how


def test_pixels_are_what_the_picture_holds(seen):
    page = opened(seen)
    script = """async (bytes) => {
      const { chunks, pixels } = await import("/page/png.js");
      const { data, ...about } = await pixels(chunks(new Uint8Array(bytes)));
      return [about, [...data]];
    }"""
    for mode in ("L", "LA", "RGB", "RGBA"):
        image = Image.radial_gradient("L").resize((43, 37)).convert(mode)
        image.putpixel((3, 3), (1, 2, 3, 4)[: len(mode)] if len(mode) > 1 else 1)
        about, data = page.evaluate(script, list(plain(image)))
        assert about == {"width": 43, "height": 37, "channels": len(mode)}
        assert bytes(data) == image.tobytes(), mode


def test_the_gallery_outlasts_the_page(seen):
    page = opened(seen)
    drawn(page)
    before = kept(page)
    page.reload()
    expect(page.locator("#pictures button")).to_have_count(2)
    assert kept(page) == before
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download all").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == before
        assert archive.namelist()[0].endswith("digits-ddim-4-3-seed5.png")
    questions = []
    page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Clear").click()
    assert questions == ["Remove 2 pictures from this browser?"] and kept(page) == before
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Clear").click()
    assert kept(page) == []
    page.reload()
    page.locator("#classes button").first.wait_for()
    assert page.locator("#pictures button").count() == 0


def test_one_picture_is_looked_at_saved_and_removed(seen):
    page = opened(seen)
    drawn(page)
    (first, _) = kept(page)
    page.get_by_role("button", name="3, seed 5, ddim, 4 steps").click()
    dialog = page.get_by_role("dialog")
    facts = [place.inner_text().split() for place in dialog.locator("dl > div").all()]
    assert facts[:3] == [["Model", "digits"], ["Solver", "ddim"], ["Steps", "4"]]
    assert ["Calls", "4"] in facts
    with page.expect_download() as waiting:
        dialog.get_by_role("link", name="Download").click()
    assert waiting.value.suggested_filename == "digits-ddim-4-3-seed5.png"
    assert Path(waiting.value.path()).read_bytes() == first
    dialog.get_by_role("button", name="Make again").click()
    expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
    page.locator("#pictures button").first.click()
    dialog.get_by_role("button", name="Remove").click()
    expect(page.locator("#pictures button")).to_have_count(2)


def test_a_link_holds_the_settings(seen):
    page = opened(
        seen, solver="euler", steps=7, second="heun 4", classes="2", seed=11, count=3, guidance=1.5
    )
    page.get_by_label("Guidance").fill("2.5")
    link = page.evaluate("() => location.href")
    page.goto("about:blank")
    page.goto(link)
    page.locator("#classes button").first.wait_for()
    expected = {
        "solver": "euler", "steps": "7", "seed": "11", "count": "3", "guidance": "2.5", "solver2": "heun",
        "steps2": "4",
    }  # fmt: skip
    assert {name: page.locator(f"#{name}").input_value() for name in expected} == expected
    assert page.locator("#classes [aria-pressed=true]").all_inner_texts() == ["2"]
    page.goto("about:blank")
    wrong = "solver=nonsense&steps=-4&classes=99 x&seed=1e9&count=0&guidance=much&second=a b c"
    page.goto(f"{seen.url}#{wrong}")
    page.locator("#classes button").first.wait_for()
    expected = {"solver": "dpmpp_2m", "steps": "20", "seed": "1", "count": "1", "guidance": "2"}
    assert {name: page.locator(f"#{name}").input_value() for name in expected} == expected


def test_without_a_class(seen, network):
    page = opened(seen, classes="", count=2)
    drawn(page, "2 samples in")
    assert [seed for _, _, seed, _, _ in methods(page)] == [5, 6]
    assert {label for *_, label, _ in methods(page)} == {network.null}
    assert pixels(page) == replayed(network, page)
    drop(page, kept(page)[0], "null.png")
    expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
    assert page.locator("figcaption").all_inner_texts() == ["seed 5"]
    assert page.locator("#classes [aria-pressed=true]").count() == 0


def test_what_the_server_refuses_is_a_sentence(seen):
    seen.allowed.append("422")
    page = opened(seen, count=40)
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("alert")).to_have_text(
        "80 samples are asked for, and a request may have 64."
    )
    expect(page.locator("[data-state=stopped]")).to_have_count(80)
    page.get_by_label("Of each").fill("1")
    drawn(page)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_server_that_is_gone_is_a_sentence(seen):
    seen.allowed.append("ERR_CONNECTION_REFUSED")
    page = opened(seen)
    page.route("**/v1/samples", lambda route: route.abort("connectionrefused"))
    page.get_by_role("button", name="Draw").click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")


def test_a_server_that_starts_is_waited_for(seen):
    """The page comes up by itself when the models are there."""
    answers = [{"status": 503, "headers": {"retry-after": "1"}, "json": SOON}]
    seen.page.route(
        "**/v1/models",
        lambda route: route.fulfill(**answers.pop()) if answers else route.continue_(),
    )
    seen.allowed.append("503")
    seen.page.goto(seen.url)
    expect(seen.page.get_by_role("alert")).to_have_text("The models are loaded.")
    assert not seen.page.locator("#draw").is_visible()
    seen.page.locator("#classes button").first.wait_for()
    expect(seen.page.get_by_role("alert")).to_be_empty()


STREAMS = {
    "": "ended before the samples were done.",
    'event: row\ndata: {"sample": 0,\n\n': "broke off before the samples were done.",
    'event: error\ndata: {"error": {"message": "the worker was lost"}}\n\n': "The worker was lost.",
}


def test_a_stream_that_fails_is_a_sentence(seen):
    begun = """event: queued\ndata: {}\n\n: still here\n
event: row\ndata: {"sample": 1, "row": 2, "rows": 5}\n
event: restarted\ndata: {}\n\n"""
    page = opened(seen)
    answer = {"content_type": "text/event-stream"}
    page.route("**/v1/samples", lambda route: route.fulfill(**answer))
    for rest, said in STREAMS.items():
        answer["body"] = begun + rest
        page.get_by_role("button", name="Draw").click()
        expect(page.get_by_role("alert")).to_contain_text(said)
        expect(page.locator("[data-state=stopped]")).to_have_count(2)
        assert page.locator("progress").last.evaluate("(e) => e.value") == 0  # made again


SOON = {"error": {"message": "the models are loaded"}}
HOSTILE = "<img src=x onerror=window.hit=1>"


def test_names_and_recipes_are_text(seen):
    """Markup in what a server or a picture says is shown and not run."""

    def models(route):
        answer = route.fetch()
        (about,) = answer.json()["data"]
        evil = about | {"id": HOSTILE, "labels": [HOSTILE] * 10, "name": HOSTILE}
        evil["solvers"] = {HOSTILE: about["solvers"]["ddim"]} | about["solvers"]
        route.fulfill(response=answer, json={"data": [about, evil]})

    seen.page.route("**/v1/models", models)
    page = opened(seen)
    drop(
        page,
        png(GRAY, RECIPE | {"network": HOSTILE, "solver": {"name": HOSTILE, "options": {}}}),
        HOSTILE,
    )
    seen.allowed += ["404", "422"]
    expect(page.get_by_role("alert")).to_contain_text("There is no model")
    assert page.get_by_role("heading", name=HOSTILE).is_visible()
    assert page.locator("#model").input_value() == HOSTILE
    assert page.locator("#classes").inner_text().count(HOSTILE) == 10
    drop(page, png(GRAY, RECIPE | {"needs": [HOSTILE]}), "needs.png")
    expect(page.get_by_role("alert")).to_contain_text(HOSTILE)
    assert page.evaluate("() => window.hit") is None
    assert page.locator("img[onerror]").count() == 0


def test_a_hostile_seed_and_class_are_text(seen):
    page = opened(seen)
    seen.allowed.append("422")
    drop(page, png(GRAY, RECIPE | {"seeds": [HOSTILE], "condition": [HOSTILE]}), "a.png")
    expect(page.get_by_role("alert")).not_to_be_empty()
    assert page.evaluate("() => window.hit") is None
    assert page.locator("#seed").input_value() == "5"


@pytest.fixture(scope="module")
def words():
    with served(InProcess(text_cases.drawn(name="words"), capacity=4, batch="fixed")) as address:
        yield address


def test_prompts_are_drawn_and_made_again(chromium, words):
    with watched(chromium, words) as seen:
        page = seen.page
        page.goto(f"{seen.url}#steps=4&seed=5&prompts=a red heart%0A%0A a cat &negative=blue")
        expect(page.get_by_label("Prompts, one a line")).to_have_value("a red heart\na cat")
        expect(page.locator("#of-classes")).to_be_hidden()
        assert page.locator("#guidance").input_value() == "3"
        drawn(page, "2 samples in")
        captions = page.locator("figcaption b").all_inner_texts()
        assert captions == ["a red heart", "a cat"]
        first, _ = contents = shown(page)
        recipes = [recipe_of(content) for content in contents]
        assert [(r["condition"], r["negative"], r["guidance"]) for r in recipes] == [
            (["a red heart"], ["blue"], [3.0]),
            (["a cat"], ["blue"], [3.0]),
        ]
        page.get_by_label("Negative prompt").fill("")
        page.get_by_label("Prompts, one a line").fill("")
        drop(page, first, "heart.png")
        expect(page.get_by_text("The same pixels: yes.")).to_be_visible()
        assert page.locator("#prompts").input_value() == "a red heart"
        assert page.locator("#negative").input_value() == "blue"
        page.locator("#pictures button").first.click()
        expect(page.locator("#picture-facts")).to_contain_text("Negativeblue")


def test_what_ships_is_shown_and_made_again(seen):
    page = opened(seen)
    expect(page.locator("#shipped-title")).to_have_text("What digits draws")
    page.wait_for_function("() => document.getElementById('shipped-image').naturalWidth > 100")
    page.get_by_role("button", name="Make the same").click()
    expect(page.get_by_role("heading", name="The picture")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled.")
