"""What every test begins with: memory that shows where nobody wrote, and a process as it was."""

import pytest
import torch
from dispatched import Operations
from poison import unwritten
from process_state import kept

from diffusion_engine import trace
from diffusion_engine.backends import native

MAKERS = {
    "empty": lambda dtype: torch.empty(2, 3, dtype=dtype),
    "empty_like": lambda dtype: torch.empty_like(torch.zeros(2, 3), dtype=dtype),
    "empty_permuted": lambda dtype: torch.empty_permuted((2, 3), (1, 0), dtype=dtype),
    "empty_strided": lambda dtype: torch.empty_strided((2, 3), (1, 2), dtype=dtype),
    "new_empty": lambda dtype: torch.zeros(1).new_empty(2, 3, dtype=dtype),
    "new_empty_strided": lambda dtype: torch.zeros(1).new_empty_strided(
        (2, 3), (1, 2), dtype=dtype
    ),
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.int64,
          torch.uint8, torch.bool, torch.complex64)  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS)
def test_memory_that_nobody_wrote_shows(maker):
    for dtype in DTYPES:
        with Operations() as ran:
            made = MAKERS[maker](dtype)
        shows = made == unwritten(dtype)
        assert (made.isnan() if dtype.is_floating_point or dtype.is_complex else shows).all()
        assert made.dtype == dtype and made._version == 0 and "fill_" not in ran.names


def test_makers_follow_the_default_device():
    with torch.device("meta"):
        assert torch.empty(3).is_meta and torch.empty_strided((3,), (1,)).is_meta


def test_a_test_leaves_the_process_as_it_was():
    cpu = native.module("_cpu")

    def state():
        threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        return threads, dtype, cpu.isa(), cpu.bf16(), trace.active()

    cpu.set_bf16("")  # as where no processor has it
    before = state()
    with kept():
        torch.set_num_threads(before[0] + 2)
        torch.set_default_dtype(torch.float64)
        cpu.set_isa(next(isa for isa in cpu.isas() if isa != before[2]))
        cpu.set_bf16("emulated")
        trace.enable()
    assert before == state()
