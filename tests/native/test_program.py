"""A recorded program: its order, its counts, its copies, its calls, its threads."""

import gc
import os
import sys
import threading
import weakref

import pytest
import torch

_cpu = pytest.importorskip("diffusion_engine._cpu")


def copying(x, out):
    p = _cpu.CopyParams()
    p.sizes, p.x_strides, p.out_strides = (
        five(t, fill) for t, fill in ((x.shape, 1), (x.stride(), 0), (out.stride(), 0))
    )
    p.x, p.out = x.data_ptr(), out.data_ptr()
    return p


def five(values, fill):
    return [fill] * (6 - len(values)) + list(values)


class Chain:
    """x -> y -> ... of one size, with the first filled by a run's input."""

    def __init__(self, pool, length=6, size=40_000):
        self.memory = torch.full((length + 1, size), torch.nan)
        self.program = _cpu.Program(pool)
        self.program.input(self.memory[0].data_ptr(), 4 * size)
        for i in range(length):
            self.program.add(copying(self.memory[i], self.memory[i + 1]), f"copy {i}")
        self.program.output(self.memory[length].data_ptr(), 4 * size)

    def run(self, x):
        out = torch.full_like(x, torch.nan)
        self.program.run([x.data_ptr()], [out.data_ptr()])
        return out


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_runs_in_order(threads):
    chain = Chain(_cpu.Pool(threads))
    for _ in range(20):
        x = torch.randn(40_000)
        assert torch.equal(chain.run(x), x)
    for row in chain.program.table():
        assert row["runs"] == 20
        assert row["barriers"] == (20 if threads > 1 else 0)
        assert row["ns"] == 0 and row["timed"] == 0


def test_small_tasks_have_no_barrier():
    chain = Chain(_cpu.Pool(2), size=500)
    x = torch.randn(500)
    assert torch.equal(chain.run(x), x)
    assert not any(row["barriers"] for row in chain.program.table())


def test_times_are_taken_when_asked():
    chain = Chain(_cpu.Pool(2))
    chain.run(torch.randn(40_000))
    chain.program.profile(True)
    chain.run(torch.randn(40_000))
    chain.program.profile(False)
    chain.run(torch.randn(40_000))
    for row in chain.program.table():
        assert (row["runs"], row["timed"]) == (3, 1) and row["ns"] > 0
    chain.program.reset()
    assert not any(row["runs"] or row["ns"] for row in chain.program.table())


def test_own_memory_is_not_copied():
    chain = Chain(_cpu.Pool(2))
    chain.memory[0] = torch.arange(40_000.0)
    chain.program.run([chain.memory[0].data_ptr()], [chain.memory[-1].data_ptr()])
    assert torch.equal(chain.memory[-1], torch.arange(40_000.0))


def test_other_numbers_of_addresses_are_refused():
    chain = Chain(_cpu.Pool(1))
    with pytest.raises(ValueError, match="has 1 inputs, but 0 addresses were given"):
        chain.program.run([], [0])
    with pytest.raises(ValueError, match="has 1 outputs, but 2 addresses were given"):
        chain.program.run([chain.memory[0].data_ptr()], [0, 0])


def test_calls_run_in_their_place():
    a, b, c = torch.randn(50_000), torch.empty(50_000), torch.empty(50_000)
    program = _cpu.Program(_cpu.Pool(2))
    program.add(copying(a, b), "before")
    program.add_call(lambda: b.mul_(2), "double")
    program.add(copying(b, c), "after")
    program.run([], [])
    assert torch.equal(c, 2 * a)
    assert [row["call"] for row in program.table()] == [False, True, False]


def test_a_failing_call_reaches_the_caller():
    program = _cpu.Program(_cpu.Pool(2))
    later = []
    program.add_call(lambda: 1 // 0, "fails")
    program.add_call(lambda: later.append(1), "later")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            program.run([], [])
    assert not later


def test_a_program_does_not_run_itself():
    program = _cpu.Program(_cpu.Pool(2))
    program.add_call(lambda: program.run([], []), "itself")
    with pytest.raises(RuntimeError, match="by one of its own calls"):
        program.run([], [])


def test_a_call_may_run_another_program_of_the_pool():
    pool = _cpu.Pool(2)
    chain, outer = Chain(pool), _cpu.Program(pool)
    x, got = torch.randn(40_000), []
    outer.add_call(lambda: got.append(chain.run(x)), "inner")
    outer.run([], [])
    assert torch.equal(got[0], x)


def test_a_call_is_let_go_with_its_program():
    class Call:
        def __call__(self):
            pass

    call = Call()
    seen = weakref.ref(call)
    program = _cpu.Program(_cpu.Pool(2))
    program.add_call(call, "call")
    del call, program
    gc.collect()
    assert seen() is None


def test_threads_share_two_pools():
    """Four threads, of which two at a time meet in a pool, each with programs of its own and one of both."""
    pools = [_cpu.Pool(2), _cpu.Pool(3)]
    shared = [Chain(pool, length=2) for pool in pools]
    failures = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        own = Chain(pools[seed % 2])
        own.program.add_call(lambda: None, "call")
        for _ in range(150):
            x = torch.randn(40_000, generator=generator)
            if not torch.equal(own.run(x), x):
                failures.append(seed)
            if not torch.equal(shared[seed % 2].run(x), x):
                failures.append(-seed)
            assert len(own.program.table()) == 7

    def watched(seed):
        try:
            work(seed)
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=watched, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures


def status(child):
    """Runs `child` in a fork and returns whether it was true, False after 20 seconds."""
    pid = os.fork()
    if pid == 0:
        threading.Timer(20, os._exit, [2]).start()
        os._exit(0 if child() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_runs_with_threads_of_its_own():
    chain = Chain(_cpu.Pool(2))
    x = torch.randn(40_000)
    chain.run(x)
    assert status(lambda: bytes(chain.run(x).numpy()) == bytes(x.numpy()))
    assert torch.equal(chain.run(x), x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_of_a_call_runs_on():
    chain, ended = Chain(_cpu.Pool(2), length=2), []
    parent = os.getpid()
    chain.program.add_call(lambda: ended.append(os.fork()), "fork")
    chain.program.add(copying(chain.memory[1], chain.memory[2]), "after")
    x = torch.randn(40_000)
    out = chain.run(x)
    if os.getpid() != parent:
        os._exit(0 if bytes(out.numpy()) == bytes(x.numpy()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(ended[0], 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_in_the_midst_of_another_threads_run(threads):
    """Who ran the program is not there in the child."""
    chain, parent = Chain(_cpu.Pool(threads)), os.getpid()
    begun, end = threading.Event(), threading.Event()

    def wait():
        if os.getpid() == parent:
            begun.set()
            end.wait(30)

    chain.program.add_call(wait, "wait")
    x = torch.randn(40_000)
    running = threading.Thread(target=chain.run, args=(x,))
    running.start()
    assert begun.wait(30)
    try:
        assert status(lambda: bytes(chain.run(x).numpy()) == bytes(x.numpy()))
    finally:
        end.set()
        running.join()
