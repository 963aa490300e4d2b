"""Every tensor of the models of the reference compressor is that of the original, however it is read."""

from __future__ import annotations

import array
import json
import mmap
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from support import BLOCK, EXTENSION, GOLDEN, HOSTILE, MODELS, UP, original_of, read

import df11

OPTIONS: list[dict[str, Any]] = [{}, {"read": True}, {"verify": True, "threads": 3}]


@pytest.mark.parametrize("options", OPTIONS, ids=["mapped", "read", "verified"])
@pytest.mark.parametrize("name", MODELS)
def test_golden_models(name: str, options: dict[str, Any]) -> None:
    original = read(original_of(name))
    with df11.open(GOLDEN / name / "model", **options) as model:
        assert set(model) == set(original)
        assert len(model) == len(original)
        assert "nothing" not in model
        for key, tensor in model.items():
            want = original[key]
            assert (tensor.name, tensor.nbytes, tensor.dtype.name) == (key, len(want.data), want.dtype)
            assert not tensor.shape_known or tensor.shape == want.shape
            assert tensor.compressed == (tensor.group is not None) == (tensor.info.file is None)
            for threads in (0, 1, 3):
                got = bytearray(tensor.nbytes)
                assert tensor.read_into(got, threads=threads) == tensor.nbytes
                assert got == want.data
            values = model.get_tensor(key)
            assert values.tobytes() == want.data
            assert values.shape == tensor.shape
            half = tensor.nbytes // 4 * 2
            got = bytearray(tensor.nbytes - half)
            assert model.read_into(key, got, offset=half) == len(got)
            assert got == want.data[half:]
        for group in model.groups():
            assert model.group(group.name).index == group.index
            want_group = b"".join(original[tensor.name].data for tensor in group.tensors())
            assert group.read().tobytes() == want_group
            assert group.nbytes == len(want_group)
            first = group.element_count // 3
            assert group.read(first=first, bits=True).tobytes() == want_group[2 * first :]
            assert group.read(first=first, count=1).tobytes() == want_group[2 * first : 2 * first + 2]


def test_tensors_in_several_groups() -> None:
    original = read(EXTENSION / "original.safetensors")
    with df11.open(EXTENSION / "model") as model:
        several = 0
        for name, tensor in model.items():
            assert tensor.read().tobytes() == original[name].data
            whole = bytearray(tensor.nbytes)
            for run in tensor.runs():
                piece = model.groups()[run.group].read(first=run.group_offset, count=run.element_count)
                begin = 2 * run.tensor_offset
                whole[begin : begin + piece.nbytes] = piece.tobytes()
                several += len(tensor.runs()) > 1
            assert not tensor.compressed or whole == original[name].data
        assert several
        assert any(group.info.extended for group in model.groups())


def test_every_kind_of_buffer(tmp_path: pathlib.Path) -> None:
    want = read(original_of("block"))[UP].data
    with df11.open(BLOCK) as model:
        tensor = model[UP]
        file = tmp_path / "weights"
        file.write_bytes(bytes(len(want)))
        with file.open("r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
            tensor.read_into(mapped)
        assert file.read_bytes() == want
        import ml_dtypes

        for buffer in (
            bytearray(len(want)),
            array.array("H", bytes(len(want))),
            memoryview(bytearray(len(want))),
            np.zeros((640, 256), ml_dtypes.bfloat16),
        ):
            tensor.read_into(buffer)
            assert bytes(np.asarray(buffer).tobytes()) == want
        values = np.zeros(len(want), np.uint8)
        tensor.read_into(df11.Address(values.ctypes.data, values.nbytes))
        assert values.tobytes() == want
        with pytest.raises(BufferError):
            tensor.read_into(bytes(len(want)))
        with pytest.raises((BufferError, ValueError)):
            tensor.read_into(np.zeros((len(want), 2), np.uint8)[:, 0])
        with pytest.raises(TypeError):
            tensor.read_into("text")
        with pytest.raises(df11.BufferTooSmallError):
            tensor.read_into(bytearray(len(want) - 1))
        with pytest.raises(df11.MisalignedError):
            tensor.read_into(memoryview(bytearray(len(want) + 1))[1:])
        with pytest.raises(df11.InvalidArgumentError):
            tensor.read_into(bytearray(8), offset=len(want), nbytes=8)
        for wrong in ({"offset": -2, "nbytes": 2}, {"threads": -1}, {"nbytes": -2}, {"threads": 2**32}):
            with pytest.raises(df11.InvalidArgumentError):
                tensor.read_into(bytearray(len(want)), **wrong)
        # A buffer is held during the call only.
        grown = bytearray(len(want))
        tensor.read_into(grown)
        grown.append(0)


def test_types_of_arrays() -> None:
    with df11.open(BLOCK) as model:
        assert model[UP].read().dtype.name == "bfloat16"
        assert model[UP].read(bits=True).dtype == np.uint16
        assert (np.asarray(model["model.norm.weight"], np.float32) == model.get_tensor("model.norm.weight")).all()


def test_slices_are_those_of_numpy() -> None:
    with df11.open(BLOCK, shapes_from=original_of("block")) as model:
        whole = model.get_tensor(UP, bits=True)
        part = model.get_slice(UP)
        assert part.get_shape() == [640, 256]
        assert part.get_dtype() == "BF16"
        keys: list[Any] = [
            3,
            -1,
            slice(None),
            slice(2, 7),
            slice(7, 2),
            slice(7, 2, -2),
            slice(-5, None, 3),
            (slice(10, 20), slice(5, 9)),
            (4, slice(None, None, -1)),
            (slice(1, 3), ..., 7),
            ...,
            (..., 3),
            (),
            (slice(600, 10000), 0),
        ]
        for key in keys:
            got = part[key]
            assert np.array_equal(np.asarray(got).view(np.uint16), whole[key]), key
        for wrong in (640, -641, (0, 300)):
            with pytest.raises(IndexError):
                part[wrong]


def test_names_that_are_not_there() -> None:
    with df11.open(BLOCK) as model:
        for name in ("nothing", "with a \0 in it"):
            with pytest.raises((df11.NotFoundError, df11.InvalidArgumentError)):
                model[name]
            assert model.get(name) is None if "\0" not in name else True
        with pytest.raises(KeyError, match="nothing"):
            model.get_tensor("nothing")
        with pytest.raises(df11.NotFoundError):
            model.group("nothing")
        with pytest.raises(df11.NotFoundError):
            model.tensor(len(model))
    with pytest.raises(ValueError, match="zero byte"):
        df11.open("with a \0 in it")


def test_a_closed_model_is_refused() -> None:
    model = df11.open(BLOCK)
    tensor, group = model[UP], model.groups()[0]
    model.close()
    model.close()
    assert model.closed
    for use in (
        tensor.read,
        group.read,
        lambda: len(model),
        lambda: model["x"],
        tensor.runs,
        lambda: model.config_text,
    ):
        with pytest.raises(df11.InvalidArgumentError, match="the model is closed"):
            use()


def test_what_is_said_of_the_model() -> None:
    with df11.open(BLOCK) as model:
        assert json.loads(model.config_text or "")["dfloat11_config"]["version"]
        part = model.groups()[0].part(df11.PART_GAPS)
        assert part.file is not None
        with open(part.file, "rb") as f:
            f.seek(part.file_offset)
            assert len(f.read(part.data_bytes)) == part.data_bytes > 0
    with df11.open(original_of("block")) as plain:
        assert plain.config_text is None
        assert plain.groups() == ()


def test_shapes_that_are_given() -> None:
    shape = (256, 640)
    with df11.open(BLOCK, shapes={UP: shape}, derive_shapes=False) as model:
        assert model[UP].shape == shape
        assert model[UP].read().shape == shape
        assert not model["lm_head.weight"].shape_known
    with pytest.raises(df11.Error):
        df11.open(BLOCK, shapes={UP: (3, 5)})


def test_bytes_in_memory() -> None:
    raw = (BLOCK / "model.safetensors").read_bytes()
    config = (BLOCK / "config.json").read_text()
    original = read(original_of("block"))
    kept = bytearray(raw)
    with df11.open_memory(kept, config=config) as model:
        with pytest.raises(BufferError):
            kept.append(0)  # the model looks at it
        assert model[UP].read().tobytes() == original[UP].data
    kept.append(0)
    with df11.open_memory(raw, config=config, verify=True) as model:
        assert model[UP].read().tobytes() == original[UP].data
    with pytest.raises(df11.InvalidFormatError):
        df11.open_memory(b"")


def test_files_that_cannot_be_opened(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere") as caught:
        df11.open(tmp_path / "nowhere")
    error = caught.value
    assert isinstance(error, df11.IoError)
    assert (error.errno, error.status, error.native_code) == (2, df11.Status.IO, 2)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.status, again.errno) == (type(error), str(error), error.status, 2)
    odd = tmp_path / b"\xff.safetensors".decode("utf-8", "surrogateescape")
    odd.write_bytes(original_of("tiny").read_bytes())
    with df11.open(odd) as model:
        assert model.tensor(0).info.file == str(odd)


# Each hostile model gives an error of the file when it is opened, verified or read. The message names the place.
def test_hostile_models() -> None:
    refused = opened = 0
    for path in sorted(HOSTILE.iterdir()):
        if path.name == "README.md":
            continue
        for read_files in (False, True):
            failure = None
            try:
                with df11.open(path, read=read_files) as model:
                    opened += 1
                    for group in model.groups():
                        for use in (
                            lambda group=group: group.read_into(bytearray(group.nbytes), threads=2),
                            lambda group=group: group.write_image(bytearray(group.image_bytes)),
                        ):
                            try:
                                use()
                            except df11.Error as e:
                                failure = e
            except df11.Error as e:
                failure = e
            if failure is None:
                with pytest.raises(df11.Error) as caught:
                    df11.open(path, read=read_files, verify=True).close()
                failure = caught.value
            assert isinstance(failure, (df11.FormatError, df11.IoError)), (path, failure)
            assert path.name in str(failure), (path, failure)
            refused += 1
    assert refused > 400
    assert opened >= 20
