"""The CUDA side of df11.torch on the driver that DF11_LIBCUDA names, with plain addresses as torch's memory.

The torch that is tested with may have no CUDA device: these tensors have addresses, devices and sizes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from test_device import Driver

import df11
import df11.torch as subject

ROOT = pathlib.Path(__file__).resolve().parents[3]
BLOCK = ROOT / "tests/data/golden/block/model"
HERE = torch.device("cuda", 0)


class OnDevice:
    """What the code uses of a tensor on a device."""

    def __init__(self, driver: Driver, shape: Any, dtype: torch.dtype, fill: int = 0xA5) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype, self.device, self.driver = dtype, HERE, driver
        self.nbytes = self.numel() * dtype.itemsize
        self.address = driver.memory(max(self.nbytes, 1), fill)

    def numel(self) -> int:
        return int(torch.tensor(self.shape).prod())

    def element_size(self) -> int:
        return self.dtype.itemsize

    def data_ptr(self) -> int:
        return self.address

    def is_contiguous(self) -> bool:
        return True

    def item(self) -> int:
        return int.from_bytes(self.driver.get(self.address, self.nbytes), "little")

    def bytes(self) -> bytes:
        return self.driver.get(self.address, self.nbytes)

    def copy_(self, other: torch.Tensor) -> None:
        self.driver.put(self.address, other.contiguous().view(-1).view(torch.uint8).numpy().tobytes())


class Torch:
    """torch, with a device."""

    def __init__(self, driver: Driver) -> None:
        stream = driver.stream()
        current = types.SimpleNamespace(cuda_stream=stream, synchronize=lambda: driver.wait(stream))
        self.driver = driver
        self.cuda = types.SimpleNamespace(
            current_stream=lambda _device: current,
            current_device=lambda: 0,
            device=lambda _device: contextlib.nullcontext(),
            synchronize=lambda _device: driver.wait(stream),
        )

    def empty(self, shape: Any, dtype: torch.dtype, device: Any = "cpu") -> Any:
        if torch.device(device).type == "cuda":
            return OnDevice(self.driver, shape, dtype)
        return torch.empty(shape, dtype=dtype)

    def zeros(self, shape: Any, dtype: torch.dtype, device: Any) -> Any:
        assert torch.device(device) == HERE
        return OnDevice(self.driver, shape, dtype, 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    path = os.environ.get("DF11_LIBCUDA")
    assert path, "DF11_LIBCUDA names no driver: frameworks.sh builds the emulated one and names it"
    driver = Driver(path)
    monkeypatch.setattr(subject, "torch", Torch(driver))
    monkeypatch.setattr(subject, "_drivers", {})
    monkeypatch.setattr(subject, "_statuses", {})
    yield driver
    driver.free()


def test_files_are_decoded_on_a_device(driver: Driver) -> None:
    assert driver
    got = subject.load_file(BLOCK, HERE)
    with df11.open(BLOCK) as model:
        assert set(got) == set(model)
        for name, tensor in got.items():
            assert isinstance(tensor, OnDevice)
            assert tensor.bytes() == model[name].read(bits=True).tobytes()


def test_weights_are_decoded_where_they_are(driver: Driver) -> None:
    with df11.open(BLOCK) as model:
        group = subject._Group(model.group("model.layers.0"))
        tensors = group.group.tensors()
        weights = [subject._Weight(t.name, *t.shape, tensor=t, group=group) for t in tensors]
        for weight in weights:
            weight.place(HERE)
        assert list(group._residents) == [HERE]
        for weight, tensor in zip(weights, tensors):
            want = tensor.read(bits=True)
            out = OnDevice(driver, tensor.shape, torch.bfloat16)
            weight.decode(0, weight.rows, out)
            some = OnDevice(driver, (3, weight.columns), torch.bfloat16)
            weight.decode(5, 3, some)
            subject.check()
            assert out.bytes() == want.tobytes()
            assert some.bytes() == want[5:8].tobytes()
        whole = OnDevice(driver, group.group.element_count, torch.bfloat16)
        group.decode(0, group.group.element_count, whole)
        subject.check()
        assert whole.bytes() == group.group.read(bits=True).tobytes()
        with pytest.raises(RuntimeError, match="its input on cpu"):
            weights[0].decode(0, 1, torch.empty(weights[0].columns, dtype=torch.bfloat16))
        # The image goes with the last weight that needs it.
        for i, weight in enumerate(weights):
            assert len(group._residents) == 1, i
            weight.place(torch.device("cpu"))
        assert not group._residents
        back = torch.empty(weights[0].rows, weights[0].columns, dtype=torch.bfloat16)
        weights[0].decode(0, weights[0].rows, back)
        assert back.view(torch.uint8).numpy().tobytes() == tensors[0].read(bits=True).tobytes()


def test_damage_on_a_device_is_an_error(driver: Driver) -> None:
    assert driver
    with df11.open(BLOCK) as model:
        group = subject._Group(model.group("model.layers.0"))
        tensor = group.group.tensors()[0]
        weight = subject._Weight(tensor.name, *tensor.shape, tensor=tensor, group=group)
        weight.place(HERE)
        image = group._residents[HERE][1]
        head = df11.device.IMAGE_HEAD_BYTES_MAX
        driver.put(image.data_ptr() + head, b"\x5a" * (image.nbytes - head))
        group.decode(0, group.group.element_count, OnDevice(driver, group.group.element_count, torch.bfloat16))
        with pytest.raises(df11.CorruptError, match="contradict"):
            subject.check()
        weight.place(torch.device("cpu"))
