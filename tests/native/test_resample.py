"""Upsampling, pooling and embedding over rows of channels, with the bits of torch."""

import pytest
import torch
from torch.nn import functional as F

_cpu = pytest.importorskip("diffusion_engine._cpu")

THREADS = pytest.mark.parametrize("threads", [1, 2])


def run(p, threads):
    program = _cpu.Program(_cpu.Pool(threads))
    program.add(p, "one")
    program.run([], [])


def rows(batch, pixels, channels, wider=3):
    """Rows in a wider tensor, and the tensor: not-a-number around them stays what it is."""
    wide = torch.full((batch, pixels, channels + wider), torch.nan)
    return wide[:, :, 1 : 1 + channels], wide


def place(t):
    return t.data_ptr(), t.stride(0), t.stride(1)


def untouched(wide, channels):
    return bool(wide[:, :, 0].isnan().all() and wide[:, :, 1 + channels :].isnan().all())


def picture(cls, x, out_size):
    batch, channels, height, width = x.shape
    x_rows, _ = rows(batch, height * width, channels)
    x_rows.copy_(x.flatten(2).transpose(1, 2))
    out_rows, wide = rows(batch, out_size[0] * out_size[1], channels)
    p = cls()
    p.batch, p.channels, p.height, p.width = batch, channels, height, width
    p.out_height, p.out_width = out_size
    p.x, p.out = place(x_rows), place(out_rows)
    return p, x_rows, out_rows, wide


def check(out_rows, wide, expected):
    got = out_rows.transpose(1, 2).reshape(expected.shape)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.nan_to_num(), expected.nan_to_num())
    assert untouched(wide, expected.shape[1])


SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 130, 16, 16), (3, 5, 7, 1), (8, 64, 8, 8)]


@THREADS
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (14, 33)])
def test_upsample_to_a_size(shape, size, threads):
    x = torch.randn(shape)
    p, *_kept, out, wide = picture(_cpu.UpsampleParams, x, size)
    p.y_step, p.x_step = shape[2] / size[0], shape[3] / size[1]
    run(p, threads)
    check(out, wide, F.interpolate(x, size=size, mode="nearest"))


@THREADS
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [2.0, 3.0, 1.3])
def test_upsample_by_a_scale(shape, scale, threads):
    x = torch.randn(shape)
    expected = F.interpolate(x, scale_factor=scale, mode="nearest")
    p, *_kept, out, wide = picture(_cpu.UpsampleParams, x, expected.shape[2:])
    p.y_step = p.x_step = 1 / scale
    run(p, threads)
    check(out, wide, expected)


WINDOWS = [
    ((2, 2), (2, 2)),
    ((3, 3), (2, 2)),
    ((2, 3), (1, 2)),
    ((1, 1), (3, 1)),
]


def pooling(x, expected, window):
    p, kept, out, wide = picture(_cpu.PoolParams, x, expected.shape[2:])
    (p.kernel_y, p.kernel_x), (p.stride_y, p.stride_x) = window
    return p, kept, out, wide


@THREADS
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 130, 16, 16), (8, 64, 8, 8)])
def test_mean(shape, window, threads):
    x = torch.randn(shape)
    expected = F.avg_pool2d(x, *window)
    p, _kept, out, wide = pooling(x, expected, window)
    run(p, threads)
    check(out, wide, expected)


@THREADS
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 130, 16, 16), (8, 64, 8, 8)])
def test_greatest(shape, window, threads):
    x = torch.randn(shape)
    x[0, 0, 1, 2], x[0, 1, 2, 2] = torch.nan, -torch.inf
    expected = F.max_pool2d(x, *window)
    p, _kept, out, wide = pooling(x, expected, window)
    p.greatest = True
    run(p, threads)
    check(out, wide, expected)


def embedding(table, labels, out):
    p = _cpu.EmbeddingParams()
    p.rows, p.features, p.count = *table.shape, labels.numel()
    p.table_row, p.out_row = table.stride(0), out.stride(0)
    p.table, p.labels, p.out = table.data_ptr(), labels.data_ptr(), out.data_ptr()
    return p


@THREADS
@pytest.mark.parametrize(("count", "features"), [(1, 1), (7, 130), (300, 257)])
def test_embedding(count, features, threads):
    table = torch.randn(11, features + 2)[:, :features]
    labels = torch.randint(0, 11, (count,))
    wide = torch.full((count, features + 1), torch.nan)
    run(embedding(table, labels, wide[:, :features]), threads)
    assert torch.equal(wide[:, :features], F.embedding(labels, table))
    assert wide[:, features].isnan().all()


@THREADS
@pytest.mark.parametrize("label", [-1, 11, 2**62])
def test_a_label_outside_is_refused(label, threads):
    table, labels, out = (
        torch.randn(11, 257),
        torch.zeros(300, dtype=torch.int64),
        torch.empty(300, 257),
    )
    program = _cpu.Program(_cpu.Pool(threads))
    program.add(embedding(table, labels, out), "embedding")
    for _ in range(3):
        labels[250] = label
        with pytest.raises(
            IndexError, match=f"label {label} at place 250 is outside of the embedding's 11 rows"
        ):
            program.run([], [])
        labels[250] = 3
        program.run([], [])
        assert torch.equal(out, F.embedding(labels, table))
