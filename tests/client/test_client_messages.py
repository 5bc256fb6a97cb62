"""What a client sends and how it reads the answers, without a connection."""

import base64
import json

import numpy as np
import pytest
import torch
from client_cases import RECIPE, packed, two
from safetensors.numpy import load, save

from diffusion_engine import Spec
from diffusion_engine.client import Failed, GivenUp, Lost, Refused, Samples, Unavailable
from diffusion_engine.client.errors import said
from diffusion_engine.client.events import Lines
from diffusion_engine.client.messages import body


@pytest.mark.parametrize("spec, given, asked", [
    (None, {}, None),
    ("unipc", {"steps": 5}, {"solver": "unipc", "steps": 5}),
    ({"solver": "ddim", "steps": 4}, {}, {"solver": "ddim", "steps": 4}),
    (Spec(solver="ddim"), {"grid": "karras"}, {"solver": {"name": "ddim", "options": {}}, "grid": "karras"}),
    (None, {"steps": np.int64(3), "noised": True}, {"steps": 3, "noised": True}),
    ("ddpm", {"noise": "brownian"}, {"solver": "ddpm", "noise": "brownian"}),
])  # fmt: skip
def test_a_spec_is_what_was_said(spec, given, asked):
    assert body(spec, given | {"seed": 1}).get("spec") == asked


def test_what_belongs_to_the_request_stands_beside_the_spec():
    given = {
        "n": 2,
        "seeds": range(2),
        "condition": np.array([3, 4]),
        "guidance": torch.tensor(2.0),
    }
    made = body("ddim", given | {"model": "digits", "deadline": 3.0, "priority": None})
    assert made == {
        "n": 2, "seeds": [0, 1], "condition": [3, 4], "guidance": 2.0, "model": "digits", "deadline": 3.0,
        "spec": {"solver": "ddim"},
    }  # fmt: skip


def test_a_seed_that_nobody_gave_is_drawn_once():
    drawn = {body("ddim", {"n": 2})["seed"] for _ in range(50)}
    assert len(drawn) == 50 and all(0 <= seed < 2**53 for seed in drawn)
    assert "seed" not in body("ddim", {"seeds": [4]}) and body("ddim", {"seed": 4})["seed"] == 4


def test_arrays_go_as_tensors():
    x, mask = torch.randn(2, 1, 3, 3, dtype=torch.float64).mT, np.eye(3, dtype=bool)
    context = np.ones((2, 5))
    made = body("ddim", {"x": x, "mask": mask, "condition": context, "seed": 0})
    tensors = load(base64.b64decode(made.pop("tensors")))
    assert made == {"seed": 0, "spec": {"solver": "ddim"}}
    assert {name: t.dtype for name, t in tensors.items()} == dict.fromkeys(
        ("x", "mask", "condition"), np.dtype(np.float32)
    )
    assert np.array_equal(tensors["x"], x.float().numpy())
    assert np.array_equal(tensors["condition"], context)


def test_an_unknown_name_is_not_sent():
    with pytest.raises(ValueError, match="a request takes no stepz; did you mean steps"):
        body("ddim", {"stepz": 4})
    with pytest.raises(ValueError, match="spec=7: give a Spec, the name of a solver"):
        body(7, {})


@pytest.mark.parametrize("status, code, kind", [
    (400, "json", Refused), (401, "invalid_api_key", Refused), (404, "not_found", Refused),
    (413, "too_large", Refused), (422, "invalid", Refused), (422, "failed", Failed),
    (409, "given_up", GivenUp), (429, "queue_full", Unavailable), (503, "quarantined", Unavailable),
    (502, "worker_lost", Failed), (500, "internal", Failed), (None, "failed", Failed),
    (None, "given_up", GivenUp), (None, "worker_lost", Failed),
])  # fmt: skip
def test_errors_are_told_apart(status, code, kind):
    about = {"message": "a sentence", "type": "t", "code": code, "param": "n"}
    error = said({"error": about}, status)
    assert type(error) is kind and str(error) == "a sentence"
    assert (error.status, error.code, error.param) == (status, code, "n")
    assert isinstance(error, ValueError) == (kind is Refused)


@pytest.mark.parametrize("content", [None, [], {"error": "no"}, {"error": {}}, "text"])
def test_an_error_of_another_shape(content):
    assert str(said(content, 500)) == "the server answered without a reason"


def read(*texts):
    lines = Lines()
    lines_of = "".join(texts).split("\n")
    return [event for line in lines_of if (event := lines.feed(line)) is not None], lines


def message(kind, data):
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def test_events_of_a_stream():
    samples = two()
    shown = base64.b64encode(save({"denoised": samples[0]})).decode()
    content = base64.b64encode(packed(samples, [1, 2])).decode()
    events, lines = read(
        message("queued", {"id": "a", "status": "queued", "rows": 5}),
        ": still here\n\n",
        message("row", {"id": "a", "sample": 1, "row": 2, "rows": 5}),
        message("preview", {"id": "a", "sample": 0, "row": 3, "rows": 5, "safetensors": shown}),
        message("done", {"id": "a", "safetensors": content}),
    )
    queued, row, preview, done = events
    assert [event.kind for event in events] == ["queued", "row", "preview", "done"]
    assert (row.sample, row.row, row.rows, row.id) == (1, 2, 5, "a") and queued.rows == 5
    assert np.array_equal(preview.denoised, samples[0])
    assert np.array_equal(done.made.samples, samples) and done.made.seeds == [1, 2]
    lines.end()


def test_an_event_may_have_many_lines_of_data():
    (event,), _ = read('event:row\nid: 4\nretry: 7\ndata:{"id": "a",\ndata: "row": 2}\n\n')
    assert (event.kind, event.id, event.row) == ("row", "a", 2)


def test_a_stream_that_ends_early_says_so():
    _, lines = read(message("started", {"id": "a"}))
    with pytest.raises(Lost, match="the stream ended before the request did"):
        lines.end()


def test_an_error_in_a_stream_is_raised():
    with pytest.raises(Failed, match="not finite"):
        read(message("error", {"error": {"message": "it is not finite", "code": "failed"}}))


def test_samples_keep_their_floats_and_their_seeds(tmp_path):
    samples = two()
    made = Samples.read(packed(samples, [1, 2**64 - 1]))
    assert np.array_equal(made.samples, samples) and made.seeds == [1, 2**64 - 1]
    assert (made.nfe, made.evaluations, made.finite) == (4, 8, [True, True])
    assert made.about == {"id": "a", "model": "digits"} and made.recipe == RECIPE
    for name in ("a.npz", "a.safetensors"):
        made.save(tmp_path / name)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert np.array_equal(found["samples"], samples)
        assert found["seeds"].tolist() == made.seeds
        assert json.loads(str(found["recipe"])) == RECIPE
    assert np.array_equal(load((tmp_path / "a.safetensors").read_bytes())["samples"], samples)


def test_a_png_holds_its_sample_and_the_recipe_of_it_alone(tmp_path):
    from PIL import Image

    made = Samples.read(packed(two(), [1, 2]))
    (tmp_path / "one.png").write_bytes(made.png(1))
    with Image.open(tmp_path / "one.png") as image:
        assert np.abs(np.asarray(image) / 127.5 - 1 - made.samples[1, 0]).max() < 1 / 127
        recipe = json.loads(image.info["diffusion_engine"])
    assert recipe == RECIPE | {"seeds": [2], "condition": [4], "guidance": [2.0]}
    with pytest.raises(ValueError, match="a PNG holds one sample and there are 2"):
        made.save(tmp_path / "all.png")
    with pytest.raises(ValueError, match=r"choose a name ending in \.npz"):
        made.save(tmp_path / "all.gif")
    wide = Samples.read(packed(np.zeros((1, 5, 2, 2), np.float32), [1]))
    with pytest.raises(ValueError, match="a PNG holds 1 or 3 channels"):
        wide.png()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\x00" * 9, packed(two(), [1, 2])[:-3], save({"a": two()})]
)
def test_an_answer_without_samples_says_so(content):
    with pytest.raises(ValueError, match="the answer holds no samples"):
        Samples.read(content)
