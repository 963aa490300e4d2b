"""Whole models: compressed, verified, decompressed, repacked, planned; progress, interrupts, the log."""

from __future__ import annotations

import json
import logging
import pathlib
import threading

import pytest
from support import BLOCK, GOLDEN, UP, large, original_of, python, read

import df11


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder as models are published, not compressed."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(original_of("block").read_bytes())
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_there_and_back(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done: list[tuple[int, int]] = []
    df = tmp_path / "df"
    made = df11.compress(source, df, shapes=True, hashes=True, progress=lambda *now: done.append(now), threads=2)
    assert made.report.complete == 1
    assert made.report.preset
    assert made.left == ()
    assert done[-1][0] == done[-1][1] > 0
    verified = df11.verify(df, source)
    assert verified.report.tensors_equal == 21
    assert verified.report.hashes_right > 0
    assert (
        verified.report.groups_good == made.report.groups == sum(f.kind == df11.FINDING_GOOD for f in verified.findings)
    )
    back = df11.decompress(df, tmp_path / "back")
    assert back.tensor_count == 21
    assert back.flat_count == 0
    want, got = read(source / "model.safetensors"), read(tmp_path / "back/model.safetensors")
    assert {n: (t.dtype, t.shape, t.data) for n, t in want.items()} == {
        n: (t.dtype, t.shape, t.data) for n, t in got.items()
    }
    assert (tmp_path / "back/tokenizer.json").exists()
    single = tmp_path / "one.safetensors"
    assert df11.repack(df, single).group_count == made.report.groups
    chosen = tmp_path / "chosen.safetensors"
    assert df11.decompress(single, chosen, tensors=[UP]).tensor_count == 1
    assert read(chosen)[UP].data == want[UP].data
    with pytest.raises(df11.ExistsError) as caught:
        df11.decompress(df, tmp_path / "back")
    assert isinstance(caught.value, FileExistsError)
    with pytest.raises(df11.NotFoundError):
        df11.decompress(df, tmp_path / "more", groups=["nothing"])


def test_the_bytes_are_those_of_the_reference(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    patterns = (BLOCK / "config.json").read_text()
    df11.compress(source / "model.safetensors", tmp_path / "one.safetensors", patterns=patterns)
    want = {n: t.data for n, t in read(BLOCK / "model.safetensors").items()}
    assert {n: t.data for n, t in read(tmp_path / "one.safetensors").items()} == want
    with df11.open(BLOCK) as model, df11.open(original_of("block")) as original:
        for group in model.groups():
            weights = [original.get_tensor(tensor.name) for tensor in group.tensors()]
            for part, name in zip(df11.compress_group(weights), df11.PackedGroup._fields):
                assert part == want.get(f"{group.name}.{name}", b""), (group, name)
    with pytest.raises(df11.InvalidArgumentError):
        df11.compress_group([b"\x01"])
    with pytest.raises(df11.InvalidArgumentError, match="exponent"):
        df11.compress_group([b"\x80\x7f" * 10])


def test_parts(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    df = tmp_path / "df"
    for part in (1, 2):
        assert df11.compress(source, df, part=part, part_count=2).report.complete == 0
    assert df11.merge(source, df).report.complete == 1
    assert df11.verify(df, source).report.tensors_equal == 21


def test_what_is_wrong_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(df11.CorruptError) as caught:
        df11.verify(BLOCK, original_of("tiny"))
    result = caught.value.result
    assert isinstance(result, df11.Verified)
    assert result.report.tensors_different > 0
    assert any(finding.kind == df11.FINDING_DIFFERS and finding.name for finding in result.findings)
    with pytest.raises(df11.InvalidFormatError):
        df11.verify(original_of("block"))
    assert df11.verify(original_of("block"), allow_plain=True).report.groups_good == 0
    with pytest.raises(df11.InvalidArgumentError):
        df11.compress(BLOCK, tmp_path / "again")


def test_plans(source: pathlib.Path) -> None:
    with df11.plan(source, sample=True) as plan:
        assert plan.info.exact == 0
        assert plan.info.preset
        assert plan.info.cache_bytes_per_token is None
        assert plan.info.cache_unknown
        assert sum(group.element_count for group in plan.groups()) == plan.info.element_count
        shares = [plan.share(device, 2, by_rows=by_rows) for by_rows in (False, True) for device in range(2)]
        assert all(share.total_bytes > 0 for share in shares)
        with pytest.raises(df11.NotFoundError):
            plan.count_tokens(10**9)
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 256,
    }
    (source / "config.json").write_text(json.dumps(config))
    with df11.plan(source) as plan:
        assert plan.info.cache_bytes_per_token == 2 * 2 * 2 * 2 * 64
        tokens, bf16 = plan.count_tokens(10**9)
        assert tokens is not None
        assert bf16 is not None
        assert plan.count_tokens(10) == (None, None)


def test_presets() -> None:
    presets = df11.presets()
    assert len(presets) > 10
    assert all(json.loads(preset.pattern_json) for preset in presets)
    assert len({preset.name for preset in presets}) == len(presets)


def test_cancelling(tmp_path: pathlib.Path) -> None:
    progress = df11.Progress()
    progress.cancel()
    with pytest.raises(df11.CancelledError):
        df11.verify(BLOCK, progress=progress)

    class EnoughError(Exception):
        pass

    calls = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        raise EnoughError

    # The exception of a callback ends the call and arrives; nothing is left of it.
    file = large(tmp_path, 40)
    with pytest.raises(EnoughError):
        df11.open(file, verify=True, progress=stop, threads=1)
    assert len(calls) == 1
    threads = {thread.name for thread in threading.enumerate()}
    assert "df11" not in threads
    progress = df11.Progress()
    df11.open(file, verify=True, progress=progress).close()
    assert progress.done == progress.total == 40 * 688128 * 2


INTERRUPTED = """
import os, signal, sys, threading, df11
# A shell starts what runs in its background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
progress, ended = df11.Progress(), threading.Event()
def interrupt():
    while progress.total == 0:
        pass
    # An exception in a callback of ctypes or in __del__ is not raised, also this one: so it comes again if it was lost.
    os.kill(os.getpid(), signal.SIGINT)
    while not ended.wait(2):
        os.kill(os.getpid(), signal.SIGINT)
thread = threading.Thread(target=interrupt)
thread.start()
try:
    while True:
        df11.open(sys.argv[1], verify=True, progress=progress, threads=1).close()
except KeyboardInterrupt:
    ended.set()
    thread.join()
    print("interrupted")
"""


def test_ctrl_c_ends_a_long_call(tmp_path: pathlib.Path) -> None:
    said = python(INTERRUPTED, large(tmp_path, 40))
    assert said.stdout == "interrupted\n", said


def test_bars_of_tqdm(capsys: pytest.CaptureFixture[str]) -> None:
    df11.verify(BLOCK, progress=True)
    assert "verifying: 100%" in capsys.readouterr().err


def test_the_log_reaches_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1, "df11")
    try:
        df11.set_log_level(1)
        df11.open(BLOCK).close()
        with pytest.raises(df11.IoError):
            df11.open("/nowhere/at/all")
        levels = {record.levelno for record in caplog.records}
        assert logging.DEBUG in levels, caplog.records
        assert any("/nowhere/at/all" in record.getMessage() for record in caplog.records)
        caplog.clear()
        df11.set_log_level(logging.CRITICAL + 1)
        df11.open(BLOCK).close()
        assert not caplog.records

        # A handler may call the library.
        class Calls(logging.Handler):
            count = 0

            def emit(self, _record: logging.LogRecord) -> None:
                if self.count == 0:
                    self.count += 1
                    df11.open(GOLDEN / "tiny/model").close()

        handler = Calls()
        logger = logging.getLogger("df11")
        logger.addHandler(handler)
        try:
            df11.set_log_level(logging.DEBUG)
            with pytest.raises(df11.IoError):
                df11.open("/nowhere")
            assert handler.count == 1
        finally:
            logger.removeHandler(handler)
    finally:
        df11.set_log_level(logging.WARNING)
