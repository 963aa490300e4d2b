"""What a process sees: threads, forks, its end with models open, what importing takes, who runs meanwhile."""

from __future__ import annotations

import ctypes as ct
import gc
import math
import os
import pathlib
import sys
import threading
import time

import pytest
from support import BLOCK, UP, Stored, large, original_of, python, read, write

import df11
from df11 import _c


def test_many_threads() -> None:
    original = read(original_of("block"))
    model = df11.open(BLOCK)
    failures: list[BaseException] = []
    begin = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            begin.wait()
            for i in range(20):
                name = list(model)[(number + i) % len(model)]
                assert model[name].read(threads=1 + i % 3).tobytes() == original[name].data
                with df11.open(BLOCK) as own:
                    assert own.groups()[0].read().nbytes == own.groups()[0].nbytes
                with pytest.raises(df11.NotFoundError, match=f"nothing {number}"):
                    model[f"nothing {number}"]
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_model_is_closed_while_threads_read() -> None:
    original = read(original_of("block"))[UP].data
    for _ in range(20):
        model = df11.open(BLOCK)
        tensor, wrong, reads = model[UP], [], []
        begin = threading.Barrier(4)

        def work(tensor: df11.Tensor = tensor, wrong: list = wrong, reads: list = reads, begin=begin) -> None:
            begin.wait()
            try:
                while True:
                    if tensor.read().tobytes() != original:
                        wrong.append("other weights")
                    reads.append(1)
            except df11.InvalidArgumentError as e:
                if "closed" not in str(e):
                    wrong.append(e)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        begin.wait()
        while not reads:
            time.sleep(0)
        model.close()
        for thread in threads:
            thread.join()
        assert not wrong


def mapped(path: pathlib.Path) -> bool:
    return str(path) in pathlib.Path("/proc/self/maps").read_text()


def test_what_is_forgotten_is_freed(tmp_path: pathlib.Path) -> None:
    file = large(tmp_path, 1)
    model = df11.open(file)
    tensor = model.tensor(0)
    assert mapped(file)
    del model
    gc.collect()
    assert mapped(file)  # the tensor has it
    del tensor
    gc.collect()
    assert not mapped(file)


@pytest.mark.parametrize("released", [True, False])
def test_other_threads_run_during_a_decode(tmp_path: pathlib.Path, released: bool) -> None:
    """A thread that counts and sleeps goes on only while the decoding one has given up the interpreter's lock."""
    if not released and not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("this interpreter has no lock")
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0.0001)

    interval = sys.getswitchinterval()
    # Nobody is asked to give the lock up.
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=count)
    try:
        with df11.open(large(tmp_path, 1)) as model, model._handle as pointer:
            group = model.groups()[0]
            buffer = bytearray(group.nbytes)
            memory = ct.addressof((ct.c_char * len(buffer)).from_buffer(buffer))
            keeping = ct.PyDLL(df11.library_path).df11_model_decompress
            keeping.argtypes = df11.lib.df11_model_decompress.argtypes
            thread.start()
            moved = 0
            for _ in range(2000 if released else 100):
                before = counted[0]
                if released:
                    group.read_into(buffer, threads=1)
                else:
                    # The same call in the wrong way shows that the counter stands still then.
                    assert keeping(pointer, 0, 0, group.element_count, memory, len(buffer), 1, None) == 0
                moved += counted[0] - before
                if moved and released:
                    break
            assert (moved > 0) == released
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


FORK = """
import os, sys, threading, df11
model = df11.open(sys.argv[1])
want = model["lm_head.weight"].read(threads=2).tobytes()
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        same = model["lm_head.weight"].read(threads=2).tobytes() == want
        same = same and df11.verify(sys.argv[1]).report.groups_bad == 0
        model.close()
        os._exit(0 if same else 1)
    pids.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
assert model["lm_head.weight"].read().tobytes() == want
print(codes)
"""

AT_EXIT = """
import atexit, sys, threading, df11
atexit.register(lambda: print(len(df11.open(sys.argv[1]))))
class Cycle:
    pass
cycle = Cycle()
cycle.self = cycle
cycle.model = df11.open(sys.argv[1])
model = df11.open(sys.argv[1])
matrix = df11.Matrix.of_tensor(model["lm_head.weight"], column_count=256)
plan = df11.plan(sys.argv[1])
progress = df11.Progress()
def decode():
    while True:
        model["lm_head.weight"].read(threads=2)
for _ in range(3):
    threading.Thread(target=decode, daemon=True).start()
df11.set_log_level(1)
"""


def test_forks() -> None:
    # Python 3.12 and later warn of threads in a process that forks; numpy's are meant.
    said = python(FORK, BLOCK, flags=("-W", "ignore::DeprecationWarning"))
    assert said.stdout == "[0, 0, 0, 0]\n", said


def test_the_end_with_models_open() -> None:
    for _ in range(3):
        said = python(AT_EXIT, BLOCK)
        assert (said.returncode, said.stdout) == (0, "21\n"), said
        assert "Traceback" not in said.stderr, said


IMPORT = """
import sys, time
before = set(sys.modules)
begin = time.process_time()
import df11
took = time.process_time() - begin
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(len(set(sys.modules) - before), f"{took * 1e3:.1f}", *sorted(new))
"""


def test_importing_is_cheap(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [python(IMPORT, flags=("-I",)).stdout.split() for _ in range(5)]
    count, modules = int(runs[0][0]), set(runs[0][2:])
    # What takes long to import would show here, however fast the machine is.
    assert count < 60, runs[0]
    assert not modules & {"numpy", "torch", "ml_dtypes", "tqdm", "asyncio", "inspect", "dataclasses", "cupy"}, runs[0]
    fastest = min(float(run[1]) for run in runs)
    with capsys.disabled():
        print(f"\nimport df11: {fastest:.1f} ms of a processor, {count} modules")
    assert fastest < 1000


# The figure is for people; the machine may be busy.
def test_a_decode_beside_the_c_call(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One group of 16 MB.
    weights = read(original_of("block"))[UP].data * 50
    packed = df11.compress_group([weights])
    write(
        tmp_path / "model.safetensors",
        {
            f"group.{name}": Stored("U8", [len(part) // 256, 256] if name == "luts" else [len(part)], bytes(part))
            for name, part in zip(packed._fields, packed)
            if name != "split_positions"
        }
        | {"group.split_positions": Stored("I64", [0], b"")},
    )
    with df11.open(tmp_path) as model:
        group = model.groups()[0]
        assert group.read().tobytes() == weights
        buffer = bytearray(group.nbytes)
        memory = (ct.c_char * len(buffer)).from_buffer(buffer)
        error = _c.df11_error()

        def in_python() -> None:
            group.read_into(buffer, threads=1)

        def in_c() -> None:
            with model._handle as pointer:
                df11.lib.df11_model_decompress(
                    pointer, 0, 0, group.element_count, ct.addressof(memory), len(buffer), 1, ct.byref(error)
                )

        best = {in_python: math.inf, in_c: math.inf}
        for _ in range(30):
            for decode in best:
                begin = time.thread_time()
                decode()
                best[decode] = min(best[decode], time.thread_time() - begin)
        assert error.status == df11.Status.OK
    with capsys.disabled():
        print(f"\n{group.nbytes} bytes: {best[in_python] * 1e6:.0f} us by read_into, {best[in_c] * 1e6:.0f} us in C")


def test_the_library_is_the_packages_own() -> None:
    if "DF11_LIBRARY" not in os.environ:
        assert pathlib.Path(df11.library_path) == pathlib.Path(df11.__file__).parent / "libdf11.so"


@pytest.mark.parametrize(("path", "says"), [("/nowhere/libdf11.so", "cannot load"), ("libc.so.6", "has no df11_")])
def test_other_libraries_are_refused(path: str, says: str) -> None:
    said = python("import df11", DF11_LIBRARY=path)
    assert said.returncode == 1
    assert "ImportError" in said.stderr
    assert says in said.stderr
