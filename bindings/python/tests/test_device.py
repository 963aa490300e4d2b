"""Decoding on the CUDA driver that DF11_LIBCUDA names, emulated or real, with addresses and streams as numbers."""

from __future__ import annotations

import ctypes as ct
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator

import pytest
from support import BLOCK, GOLDEN, HOSTILE, original_of

import df11
from df11.device import IMAGE_HEAD_BYTES_MAX, Device, Resident, decompress_batch, image_info, image_slices


class Driver:
    """The calls of the CUDA driver that an engine would make, in the primary context of device 0."""

    def __init__(self, path: str) -> None:
        self.library = ct.CDLL(path)
        self.context = ct.c_void_p()
        self.kept: list[int] = []
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ct.byref(self.context), 0)

    def call(self, name: str, *arguments: object) -> None:
        result = getattr(self.library, name)(*arguments)
        assert result == 0, f"{name}: {result}"

    def current(self) -> None:
        self.call("cuCtxSetCurrent", self.context)

    def memory(self, nbytes: int, fill: int = 0xA5) -> int:
        self.current()
        out = ct.c_uint64()
        self.call("cuMemAlloc_v2", ct.byref(out), ct.c_size_t(nbytes))
        self.kept.append(out.value)
        self.put(out.value, bytes([fill]) * nbytes)
        return out.value

    def put(self, to: int, data: bytes) -> None:
        self.current()
        self.call("cuMemcpyHtoD_v2", ct.c_uint64(to), data, ct.c_size_t(len(data)))

    def get(self, address: int, nbytes: int) -> bytes:
        self.current()
        out = ct.create_string_buffer(nbytes)
        self.call("cuMemcpyDtoH_v2", out, ct.c_uint64(address), ct.c_size_t(nbytes))
        return out.raw

    def stream(self) -> int:
        self.current()
        out = ct.c_void_p()
        self.call("cuStreamCreate", ct.byref(out), 1)
        assert out.value
        return out.value

    def wait(self, stream: int) -> None:
        self.current()
        self.call("cuStreamSynchronize", ct.c_void_p(stream))

    def free(self) -> None:
        self.current()
        while self.kept:
            self.call("cuMemFree_v2", ct.c_uint64(self.kept.pop()))
        self.call("cuCtxSetCurrent", None)


@pytest.fixture(scope="module")
def loaded() -> Driver:
    path = os.environ.get("DF11_LIBCUDA")
    assert path, "DF11_LIBCUDA names no driver: test.sh builds the emulated one and names it"
    return Driver(path)


@pytest.fixture
def driver(loaded: Driver) -> Iterator[Driver]:
    yield loaded
    loaded.free()


@pytest.fixture
def stream(driver: Driver) -> Iterator[int]:
    made = driver.stream()
    yield made
    driver.current()
    driver.call("cuStreamDestroy_v2", ct.c_void_p(made))


def test_every_way_to_a_resident(driver: Driver, stream: int) -> None:
    d_status = driver.memory(4, 0)
    with Device(0) as device, df11.open(GOLDEN / "sharded/model") as model:
        assert device.info.name
        assert device.info.ordinal == 0
        assert device.info.capability_major >= 7
        for group in model.groups():
            want = group.read().tobytes()
            image = bytearray(group.image_bytes)
            group.write_image(image)
            parts = bytearray(group.image_bytes)
            for part in range(3):
                group.write_image(parts, part=part, part_count=3)
            assert parts == image
            copied = driver.memory(group.image_bytes)
            driver.put(copied, bytes(image))
            staging = bytearray(1 << 16)
            residents = {
                "upload": device.upload(group, driver.memory(group.image_bytes), group.image_bytes, stream),
                "staged": device.upload(
                    group, driver.memory(group.image_bytes), group.image_bytes, stream, staging=staging
                ),
                "bind": device.bind(group, copied, group.image_bytes),
                "image": device.bind_image(image[:IMAGE_HEAD_BYTES_MAX], copied, group.image_bytes),
            }
            d_dst = driver.memory(group.nbytes + 64)

            def decoded(what: str, begin: int, end: int, d_dst: int = d_dst, want: bytes = want) -> None:
                driver.wait(stream)
                got = driver.get(d_dst, len(want) + 64)
                assert got[: end - begin] == want[begin:end], what
                assert got[end - begin :] == b"\xa5" * (len(got) - end + begin), what
                assert driver.get(d_status, 4) == bytes(4), what
                driver.put(d_dst, b"\xa5" * len(got))

            for what, resident in residents.items():
                resident.decompress(d_dst, group.nbytes, stream, d_status=d_status)
                decoded(what, 0, len(want))
                count = group.element_count - 5
                resident.decompress_range(3, count, d_dst, group.nbytes, stream, d_status=d_status)
                decoded(what, 6, 6 + 2 * count)
                ends = resident.info.tensor_ends
                begins = (0, *ends[:-1])
                resident.decompress_tensors(
                    [d_dst + 2 * begin for begin in begins],
                    [2 * (end - begin) for begin, end in zip(begins, ends)],
                    stream,
                    d_status=d_status,
                )
                decoded(what, 0, len(want))
                decompress_batch([resident], [d_dst], [group.nbytes], stream, d_statuses=d_status)
                decoded(what, 0, len(want))
                assert resident.info.image_bytes == group.image_bytes
                assert resident.info.element_count == group.element_count == ends[-1]
                resident.uploaded()
                resident.close()
                with pytest.raises(df11.InvalidArgumentError, match="the resident is closed"):
                    resident.decompress(d_dst, group.nbytes, stream)


def test_parts_of_groups(driver: Driver, stream: int) -> None:
    with Device() as device, df11.open(BLOCK, shapes_from=original_of("block")) as model:
        group = model.group("model.layers.0")
        want = group.read().tobytes()
        first, count = 1000, 54321
        about = group.image_range_info(first, count)
        image = bytearray(about.image_bytes)
        group.write_image_range(first, count, image)
        assert image_info(image) == about
        assert image_slices(image) == ()
        d_image = driver.memory(len(image))
        d_dst = driver.memory(2 * count)
        with device.upload_range(group, first, count, d_image, len(image), stream) as resident:
            resident.decompress(d_dst, 2 * count, stream)
            driver.wait(stream)
            assert driver.get(d_dst, 2 * count) == want[2 * first :][: 2 * count]
            assert driver.get(d_image, len(image)) == image
            assert resident.info.first_element == first
        # Columns of the second rank, as tensor parallelism divides them.
        names = [tensor.name.rpartition("layers.0.")[2] for tensor in group.tensors()]
        number = names.index("mlp.down_proj.weight")
        tensor = group.tensors()[number]
        rows, columns = tensor.shape
        slices = group.slices(number, 1, 2)
        with group.shard(slices, threads=2) as shard:
            image = bytearray(shard.image_bytes)
            shard.write_image(image)
        assert image_slices(image) == slices
        d_image, nbytes = driver.memory(len(image)), tensor.nbytes // 2
        driver.put(d_image, bytes(image))
        d_dst = driver.memory(nbytes)
        with device.bind_image(image, d_image, len(image)) as resident:
            assert resident.info.slices == slices
            resident.decompress(d_dst, nbytes, stream)
            driver.wait(stream)
        whole = tensor.read(bits=True).reshape(rows, columns)
        assert driver.get(d_dst, nbytes) == whole[:, columns // 2 :].tobytes()
        segment = df11.Segment(columns, unit=32)
        assert segment.split(1, 2) == range(columns // 2, columns)
        assert group.slices(number, 0, 2, dimension=1, segments=[segment])[0].first == 0
        with pytest.raises(df11.InvalidArgumentError):
            group.slices(number, 2, 2)


def test_the_model_stays_until_the_upload_is_done(driver: Driver, stream: int) -> None:
    def is_mapped() -> bool:
        return "golden/tiny" in pathlib.Path("/proc/self/maps").read_text()

    for end in (Resident.uploaded, Resident.close):
        with Device() as device:
            model = df11.open(GOLDEN / "tiny/model")
            group = model.groups()[0]
            resident = device.upload(group, driver.memory(group.image_bytes), group.image_bytes, stream)
            model.close()
            del model, group
            assert is_mapped()
            driver.wait(stream)
            end(resident)
            assert not is_mapped()
            resident.close()


def test_a_forgotten_upload_is_said(driver: Driver, stream: int) -> None:
    with Device() as device, df11.open(GOLDEN / "tiny/model") as model:
        group = model.groups()[0]
        resident = device.upload(group, driver.memory(group.image_bytes), group.image_bytes, stream)
        with pytest.warns(ResourceWarning, match="neither closed"):
            del resident
        driver.wait(stream)
        # One whose upload is done may be forgotten.
        resident = device.upload(group, driver.memory(group.image_bytes), group.image_bytes, stream)
        driver.wait(stream)
        resident.uploaded()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del resident


def test_streams_and_threads(driver: Driver) -> None:
    with Device() as device, df11.open(BLOCK) as model:
        group = model.groups()[-1]
        want = group.read().tobytes()
        first = driver.stream()
        resident = device.upload(group, driver.memory(group.image_bytes), group.image_bytes, first)
        driver.wait(first)
        resident.uploaded()
        failures: list[BaseException] = []

        def work(d_dst: int, stream: int) -> None:
            try:
                for _ in range(5):
                    resident.decompress(d_dst, group.nbytes, stream)
                driver.wait(stream)
                assert driver.get(d_dst, group.nbytes) == want
            except BaseException as e:
                failures.append(e)

        places = [(driver.memory(group.nbytes), driver.stream()) for _ in range(4)]
        threads = [threading.Thread(target=work, args=place) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        with pytest.raises(df11.DefaultStreamError):
            resident.decompress(places[0][0], group.nbytes, 0)
        resident.close()
    with Device(0, allow_default_stream=True, multiprocessors=1) as device, df11.open(BLOCK) as model:
        group = model.groups()[-1]
        d_image = driver.memory(group.image_bytes)
        with device.upload(group, d_image, group.image_bytes, 0) as resident:
            resident.decompress(places[0][0], group.nbytes, 0)
            driver.current()
            driver.call("cuCtxSynchronize")
            assert driver.get(places[0][0], group.nbytes) == want
    for _, stream in places:
        driver.current()
        driver.call("cuStreamDestroy_v2", ct.c_void_p(stream))


def test_the_context_that_is_current(driver: Driver) -> None:
    driver.call("cuCtxSetCurrent", None)
    with pytest.raises(df11.InvalidArgumentError):
        Device(None)
    driver.current()
    with Device(None) as device:
        assert device.info.ordinal == 0


def test_mistakes(driver: Driver, stream: int) -> None:
    device, model = Device(), df11.open(GOLDEN / "tiny/model")
    group = model.groups()[0]
    d_image = driver.memory(group.image_bytes + 256)
    for wrong in (
        lambda: device.upload(group, d_image + 8, group.image_bytes, stream),
        lambda: device.upload(group, d_image, group.image_bytes - 1, stream),
        lambda: device.upload(group, d_image, -1, stream),
        lambda: device.upload(group, d_image, group.image_bytes, stream, staging=bytearray(10)),
        lambda: Device(99),
        lambda: Device(2**40),
        lambda: device.bind_image(b"", d_image, group.image_bytes),
        lambda: image_info(bytes(1000)),
    ):
        with pytest.raises(
            (df11.MisalignedError, df11.BufferTooSmallError, df11.InvalidArgumentError, df11.FormatError)
        ):
            wrong()
    with pytest.raises(df11.NoDriverError, match="nowhere"):
        Device(libcuda="/nowhere/libcuda.so.1")
    # Gross damage reaches the status word.
    with df11.open(HOSTILE / "gap_of_a_later_chunk.safetensors") as bad:
        b = bad.groups()[0]
        d_status = driver.memory(4, 0)
        with device.upload(b, driver.memory(b.image_bytes), b.image_bytes, stream) as resident:
            resident.decompress(driver.memory(b.nbytes), b.nbytes, stream, d_status=d_status)
            driver.wait(stream)
            assert int.from_bytes(driver.get(d_status, 4), "little") == df11.Status.CORRUPT
    model.close()
    with pytest.raises(df11.InvalidArgumentError, match="the model is closed"):
        device.upload(group, d_image, group.image_bytes, stream)
    device.close()
    with (
        df11.open(GOLDEN / "tiny/model") as again,
        pytest.raises(df11.InvalidArgumentError, match="the device is closed"),
    ):
        device.upload(again.groups()[0], d_image, group.image_bytes, stream)
