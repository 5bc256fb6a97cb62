"""Operators: each with its transpose, and a sentence for one that has another."""

import numpy as np
import pytest
import torch

from diffusion_engine.drivers.operators import Operator, operator

SHAPE = (2, 6, 8)
NAMED = {
    "inpainting box": {"name": "inpainting", "box": [1, 2, 3, 4]},
    "inpainting mask": {"name": "inpainting", "mask": (np.arange(48).reshape(6, 8) % 3 == 0)},
    "super_resolution": "super_resolution",
    "deblurring": "deblurring",
    "deblurring reflect": {"name": "deblurring", "size": 9, "sigma": 2.0, "padding": "reflect"},
    "deblurring wide": {"name": "deblurring", "size": 11, "sigma": 3.0},
}


def dense(a, shape=SHAPE):
    """A and its adjoint as matrices."""
    count, measured = int(np.prod(shape)), a.measured(shape)
    ahead = a.apply(torch.eye(count, dtype=torch.float64).view(count, *shape)).flatten(1).T
    rows = len(ahead)
    return ahead, a.adjoint(torch.eye(rows, dtype=torch.float64).view(rows, *measured)).flatten(1)


@pytest.mark.parametrize("name", NAMED)
def test_the_adjoint_is_the_transpose(name):
    ahead, back = dense(operator(NAMED[name]))
    assert torch.allclose(ahead, back, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", NAMED)
def test_a_sample_is_the_same_in_a_batch(name):
    a = operator(NAMED[name])
    x = torch.randn(5, *SHAPE)
    y = a.apply(x)
    assert torch.equal(a.apply(x[3:4])[0], y[3])
    assert torch.equal(a.adjoint(y[3:4].clone())[0], a.adjoint(y)[3])


def test_what_they_do():
    x = torch.arange(48.0).view(1, 1, 6, 8)
    pooled = operator({"name": "super_resolution", "factor": 2}).apply(x)
    assert torch.equal(pooled, torch.nn.functional.avg_pool2d(x, 2))
    left = operator({"name": "inpainting", "box": (1, 2, 3, 4)}).apply(x)
    assert (left[0, 0, 1:4, 2:6] == 0).all() and left.count_nonzero() == 47 - 12
    flat = torch.ones(1, 2, 6, 8)
    for padding in ("circular", "reflect"):
        blurred = operator({"name": "deblurring", "padding": padding}).apply(flat)
        assert torch.allclose(blurred, flat)
    point = torch.zeros(1, 1, 7, 7)
    point[0, 0, 0, 3] = 1.0
    spread = operator({"name": "deblurring", "size": 3, "sigma": 1.0}).apply(point)[0, 0]
    assert spread[6, 3] == spread[1, 3] > 0 and spread.sum() == pytest.approx(1.0)
    spread = operator({"name": "deblurring", "size": 3, "padding": "reflect"}).apply(point)[0, 0]
    assert spread[6, 3] == 0 and spread[1, 3] > 0


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_a_blur_is_torchs_convolution_of_the_padded_image(padding):
    x = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    window = torch.exp(-0.5 * (torch.arange(-2.0, 3.0, dtype=torch.float64) / 1.5) ** 2)
    kernel = window[:, None] * window / window.sum() ** 2
    wide = torch.nn.functional.pad(x, (2, 2, 2, 2), mode=padding)
    wanted = torch.nn.functional.conv2d(wide, kernel[None, None])
    blurred = operator({"name": "deblurring", "size": 5, "sigma": 1.5, "padding": padding}).apply(x)
    assert torch.allclose(blurred, wanted, atol=1e-14)


def test_what_lies_in_a_hole_is_not_read():
    a = operator({"name": "inpainting", "box": [0, 0, 2, 2]})
    y = torch.full((1, 1, 4, 4), torch.nan)
    y[:, :, 2:] = y[:, :, :, 2:] = 1.0
    y[0, 0, :2, :2] = torch.nan
    assert torch.equal(
        a.residual(y.nan_to_num(7.0), torch.ones(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4)
    )
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1.0
    b = operator({"name": "inpainting", "mask": mask})
    assert torch.equal(b.residual(y, torch.ones(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


def test_a_mask_is_no_path(tmp_path):
    """A server's clients name operators, and no files."""
    with pytest.raises(ValueError, match="give \\[\\*pixel\\], 1 where the hole is"):
        operator({"name": "inpainting", "mask": str(tmp_path)})


X = torch.ones(1, *SHAPE)
WRONG = {
    "unknown": (lambda: operator("blur"), "operator='blur': choose inpainting, super_resolution"),
    "no name": (lambda: operator({"factor": 2}), "operator={'factor': 2}: give an Operator"),
    "kind": (lambda: operator(3), "operator=3: give an Operator(apply, adjoint), a name"),
    "option": (
        lambda: operator({"name": "deblurring", "width": 3}),
        "operator 'deblurring' takes no width",
    ),
    "functions": (lambda: Operator(1, 2), "apply=1: give a function"),
    "box and mask": (lambda: operator("inpainting"), "inpainting takes box=(top, left"),
    "box": (lambda: operator({"name": "inpainting", "box": [1, 2]}), "box=[1, 2]: the hole is"),
    "box outside": (
        lambda: operator({"name": "inpainting", "box": [4, 0, 4, 4]}).measured(SHAPE),
        "box=[4, 0, 4, 4]: the hole is (top, left, height, width), whole numbers that lie in the image",
    ),
    "no picture": (lambda: operator({"name": "inpainting", "mask": "no.png"}), "mask='no.png'"),
    "factor": (
        lambda: operator({"name": "super_resolution", "factor": 4}).measured(SHAPE),
        "factor=4 does not divide the image [6, 8]",
    ),
    "a factor of 1": (lambda: operator({"name": "super_resolution", "factor": 1}), "factor=1"),
    "even": (lambda: operator({"name": "deblurring", "size": 4}), "size=4, sigma=1: give an odd"),
    "sigma": (
        lambda: operator({"name": "deblurring", "sigma": 0}),
        "give an odd size, and a sigma",
    ),
    "padding": (lambda: operator({"name": "deblurring", "padding": "zero"}), "padding='zero'"),
    "wide": (
        lambda: operator({"name": "deblurring", "size": 13}).measured(SHAPE),
        "a window of 13 elements is too wide for an image of 6",
    ),
    "not the transpose": (
        lambda: Operator(lambda x: x[:, :, ::2], lambda y: y.repeat_interleave(2, 2)).measured(
            SHAPE
        ),
        "the adjoint of 'operator' is not the transpose of apply: for normals x and y <A x, y> = ",
    ),
    "scaled": (
        lambda: Operator(lambda x: x, lambda y: 1.01 * y).measured(SHAPE),
        "is not the transpose of apply",
    ),
    "an offset": (
        lambda: Operator(lambda x: x + 1.0, lambda y: y).measured(SHAPE),
        "give the linear A, without an offset",
    ),
    "another shape back": (
        lambda: Operator(lambda x: x[:, :1], lambda y: y).measured(SHAPE),
        "the adjoint of 'operator' makes [2, 1, 6, 8] of [2, 1, 6, 8], and apply made that of [2, 2, 6, 8]",
    ),
    "no batch": (
        lambda: Operator(lambda x: x[0], lambda y: y[None]).measured((3, 4)),
        "apply of 'operator' makes Tensor [3, 4] of [2, 3, 4]; it makes one entry for each",
    ),
    "refused": (
        lambda: Operator(lambda x: x @ torch.ones(9, 9), lambda y: y).measured(SHAPE),
        "apply of 'operator' does not take [2, 2, 6, 8] (",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_sentence_for(case):
    made, said = WRONG[case]
    with pytest.raises(ValueError) as error:
        made()
    assert said in str(error.value)
