"""CUDA devices: images in device memory that you allocate, decoded on your streams. No framework and no toolkit is
needed.

Addresses in device memory and streams are numbers: `tensor.data_ptr()` and `torch.cuda.current_stream().cuda_stream` of
PyTorch, `array.data.ptr` and `stream.ptr` of cupy. Nothing here keeps your memory alive.
"""

from __future__ import annotations

import ctypes as ct
import warnings
from collections.abc import Sequence
from typing import Optional

from . import _c
from ._c import DeviceInfo, ImageInfo, ResidentInfo, Slice
from ._library import (
    Closing,
    Handle,
    ProgressLike,
    StrPath,
    call,
    default_threads,
    info,
    invalid,
    lib,
    path_text,
    plain,
    run,
    struct,
)
from ._memory import Buffer, Memory
from ._model import Group, Model, _natural, _small

IMAGE_HEAD_BYTES_MAX = _c.DF11_IMAGE_HEAD_BYTES_MAX
"""The head of no image has more bytes."""


class Device(Closing):
    """An open CUDA device, with all kernels loaded. It never changes: any number of threads may use it at once.

    `Device(0)` is a device in its primary context, which is that of PyTorch, cupy and the CUDA runtime; `Device(None)`
    is that of the context that is current on this thread. `allow_default_stream` accepts 0 as a stream: the one that
    PyTorch works on unless told otherwise. `multiprocessors` limits how many the kernels of a call fill. The driver's
    library is `libcuda`, or what the environment variable DF11_LIBCUDA names, or the system's.
    """

    def __init__(
        self,
        ordinal: Optional[int] = 0,
        *,
        allow_default_stream: bool = False,
        force_ptx: bool = False,
        early_start: bool = False,
        multiprocessors: int = 0,
        libcuda: Optional[StrPath] = None,
    ) -> None:
        flags = (
            (_c.DF11_DEVICE_ALLOW_DEFAULT_STREAM if allow_default_stream else 0)
            | (_c.DF11_DEVICE_FORCE_PTX if force_ptx else 0)
            | (_c.DF11_DEVICE_EARLY_START if early_start else 0)
        )
        options = struct(
            _c.df11_device_options,
            flags=flags,
            multiprocessors=_small(multiprocessors),
            libcuda=None if libcuda is None else path_text(libcuda),
        )
        out = ct.c_void_p()
        if ordinal is None:
            call(lib.df11_device_open_current, ct.byref(options), ct.byref(out))
        else:
            if not -(2**31) <= ordinal < 2**31:
                raise invalid(f"device {ordinal}")
            call(lib.df11_device_open, ordinal, ct.byref(options), ct.byref(out))
        self._handle = Handle("device", out.value or 0, lib.df11_device_free)
        with self._handle as pointer:
            self.info: DeviceInfo = info(lib.df11_device_get_info, _c.df11_device_info, pointer)

    def __enter__(self) -> Device:
        return self

    def __repr__(self) -> str:
        return f"<df11.Device {self.info.ordinal}, {self.info.name}>"

    def upload(
        self,
        group: Group,
        d_image: int,
        image_bytes: int,
        stream: int,
        *,
        staging: Optional[Buffer] = None,
    ) -> Resident:
        """Makes a group's image in device memory of yours: `group.image_bytes` bytes at an address that is a multiple
        of 256.

        The copies are put into `stream`. They read the model's files, or `staging`, host memory that should be pinned:
        keep the staging memory until the stream has executed the upload. Say so by `Resident.uploaded()`, or close the
        resident then; until that is said, the model stays open, whoever closes it.
        """
        out = ct.c_void_p()
        with self._handle as pointer, group.model._handle as model:
            if staging is None:
                call(
                    lib.df11_device_upload,
                    pointer,
                    model,
                    group.index,
                    _natural(d_image),
                    _natural(image_bytes),
                    _natural(stream),
                    ct.byref(out),
                )
            else:
                with Memory(staging, writable=True) as memory:
                    call(
                        lib.df11_device_upload_staged,
                        pointer,
                        model,
                        group.index,
                        _natural(d_image),
                        _natural(image_bytes),
                        _natural(stream),
                        memory.address,
                        memory.nbytes,
                        ct.byref(out),
                    )
        return Resident(self, out.value or 0, group.model, staging)

    def upload_range(
        self,
        group: Group,
        first: int,
        count: int,
        d_image: int,
        image_bytes: int,
        stream: int,
        *,
        staging: Optional[Buffer] = None,
    ) -> Resident:
        """Makes the image of `count` of a group's weights, from weight `first` on, as `upload` makes that of all.

        `Group.image_range_info` says how many bytes it takes.
        """
        out = ct.c_void_p()
        memory = None if staging is None else Memory(staging, writable=True)
        try:
            with self._handle as pointer, group.model._handle as model:
                call(
                    lib.df11_device_upload_range,
                    pointer,
                    model,
                    group.index,
                    _natural(first),
                    _natural(count),
                    _natural(d_image),
                    _natural(image_bytes),
                    _natural(stream),
                    None if memory is None else memory.address,
                    0 if memory is None else memory.nbytes,
                    ct.byref(out),
                )
        finally:
            if memory is not None:
                memory.release()
        return Resident(self, out.value or 0, group.model, staging)

    def bind(self, group: Group, d_image: int, image_bytes: int) -> Resident:
        """Takes a group's image that is in device memory already, by a copy of yours of what `Group.write_image`
        wrote."""
        out = ct.c_void_p()
        with self._handle as pointer, group.model._handle as model:
            call(
                lib.df11_device_bind,
                pointer,
                model,
                group.index,
                _natural(d_image),
                _natural(image_bytes),
                ct.byref(out),
            )
        return Resident(self, out.value or 0)

    def bind_image(self, head: Buffer, d_image: int, image_bytes: int) -> Resident:
        """Takes an image that is in device memory already, without its model: `head` are its first bytes, in host
        memory.

        IMAGE_HEAD_BYTES_MAX bytes are enough for any, and so is a whole image.
        """
        out = ct.c_void_p()
        with self._handle as pointer, Memory(head, writable=False) as memory:
            call(
                lib.df11_device_bind_image,
                pointer,
                memory.address,
                memory.nbytes,
                _natural(d_image),
                _natural(image_bytes),
                ct.byref(out),
            )
        return Resident(self, out.value or 0)


# Residents that nobody has closed and whose uploads may not be done: what they copy from must stay.
_abandoned: list[object] = []


class Resident(Closing):
    """An image on a device, ready to be decoded. It never changes: any number of threads may use it at once.

    It owns no device memory: keep the image until the resident is closed, its decodes are done, and no captured graph
    that has one will be launched again.
    """

    def __init__(
        self, device: Device, pointer: int, model: Optional[Model] = None, staging: Optional[Buffer] = None
    ) -> None:
        self.device = device
        self._handle = Handle("resident", pointer, lib.df11_resident_free)
        # The model is in use, as by a call, until its upload is done. One thread alone takes the only element out.
        self._upload: list[tuple[Handle, object]] = []
        if model is not None:
            model._handle.__enter__()
            self._upload.append((model._handle, staging))
        with self._handle as resident:
            self.info: ResidentInfo = info(lib.df11_resident_get_info, _c.df11_resident_info, resident)

    def __enter__(self) -> Resident:
        return self

    def uploaded(self) -> None:
        """Says that the stream has executed the upload: model and staging memory are free to go."""
        try:
            model, _staging = self._upload.pop()
        except IndexError:
            return
        model.__exit__()

    def close(self) -> None:
        """Frees it. The stream must have executed its upload; decodes that are in streams or graphs go on."""
        super().close()
        self.uploaded()

    def __del__(self) -> None:
        if getattr(self, "_upload", None) and not self._handle.closed:
            # Nothing here can ask the stream: the resident counts as in use for ever.
            self._handle.__enter__()
            _abandoned.append((self._handle, self._upload.pop()))
            warnings.warn("a df11.Resident was neither closed nor uploaded()", ResourceWarning, stacklevel=2)

    def decompress(self, d_dst: int, dst_bytes: int, stream: int, *, d_status: int = 0) -> None:
        """Decodes all that it holds to `dst_bytes` bytes of device memory; the work is put into `stream`.

        Nothing is allocated and nothing is waited for; the call may be captured in a graph. `d_status` is 0, or the
        address of a uint32 that is 0: it becomes `Status.CORRUPT` if the image contradicts itself.
        """
        with self._handle as pointer:
            call(
                lib.df11_resident_decompress,
                pointer,
                _natural(d_dst),
                _natural(dst_bytes),
                _natural(d_status),
                _natural(stream),
            )

    def decompress_range(
        self, first: int, count: int, d_dst: int, dst_bytes: int, stream: int, *, d_status: int = 0
    ) -> None:
        """Decodes `count` weights from weight `first` of the group on, as `decompress` does all."""
        with self._handle as pointer:
            call(
                lib.df11_resident_decompress_range,
                pointer,
                _natural(first),
                _natural(count),
                _natural(d_dst),
                _natural(dst_bytes),
                _natural(d_status),
                _natural(stream),
            )

    def decompress_tensors(
        self, d_dsts: Sequence[int], dst_bytes: Sequence[int], stream: int, *, d_status: int = 0
    ) -> None:
        """Decodes each tensor to a destination of its own, in the order of their weights; 0 leaves one out."""
        if len(d_dsts) != len(dst_bytes):
            raise invalid(f"{len(d_dsts)} destinations have {len(dst_bytes)} sizes")
        count = len(d_dsts)
        with self._handle as pointer:
            call(
                lib.df11_resident_decompress_tensors,
                pointer,
                (ct.c_ulonglong * count)(*d_dsts),
                (ct.c_size_t * count)(*dst_bytes),
                count,
                _natural(d_status),
                _natural(stream),
            )


def decompress_batch(
    residents: Sequence[Resident],
    d_dsts: Sequence[int],
    dst_bytes: Sequence[int],
    stream: int,
    *,
    d_statuses: int = 0,
) -> None:
    """Decodes several residents of one context, each to a destination of its own, in as few launches as possible.

    `d_statuses` is 0, or the address of one uint32 for each of them.
    """
    count = len(residents)
    if len(d_dsts) != count or len(dst_bytes) != count:
        raise invalid(f"{count} residents have {len(d_dsts)} destinations and {len(dst_bytes)} sizes")
    used: list[Handle] = []
    try:
        pointers = (ct.c_void_p * count)()
        for i, resident in enumerate(residents):
            pointers[i] = resident._handle.__enter__()
            used.append(resident._handle)
        call(
            lib.df11_resident_decompress_batch,
            pointers,
            (ct.c_ulonglong * count)(*d_dsts),
            (ct.c_size_t * count)(*dst_bytes),
            count,
            _natural(d_statuses),
            _natural(stream),
        )
    finally:
        for handle in used:
            handle.__exit__()


class Shard(Closing):
    """Slices of a group, counted, so that their image can be written. `Group.shard` makes it."""

    def __init__(self, model: Model, pointer: int) -> None:
        # The model stays open until the shard is freed.
        model_handle = model._handle
        model_handle.__enter__()

        def free(shard: int) -> None:
            lib.df11_shard_free(shard)
            model_handle.__exit__()

        self._handle = Handle("shard", pointer, free)
        with self._handle as shard:
            self.info: ImageInfo = info(lib.df11_shard_get_image_info, _c.df11_image_info, shard)

    def __enter__(self) -> Shard:
        return self

    @property
    def image_bytes(self) -> int:
        """Bytes of its image."""
        return self.info.image_bytes

    def write_image(self, buffer: Buffer, *, threads: Optional[int] = None, progress: ProgressLike = None) -> None:
        """Writes its image to a writable buffer. Copy it to a device, and give it to `Device.bind_image`."""
        workers = default_threads(threads)
        with Memory(buffer, writable=True) as memory:

            def work(token: int) -> None:
                with self._handle as shard:
                    call(lib.df11_shard_write_image, shard, memory.address, memory.nbytes, workers, token)

            run("encoding", progress, work)


def image_info(head: Buffer) -> ImageInfo:
    """Describes an image by its first bytes, of which IMAGE_HEAD_BYTES_MAX are enough."""
    with Memory(head, writable=False) as memory:
        about: ImageInfo = info(lib.df11_image_get_info, _c.df11_image_info, memory.address, memory.nbytes)
    return about


def image_slices(head: Buffer) -> tuple[Slice, ...]:
    """Returns the slices that an image holds, by its first bytes; none for a range and for a whole group."""
    found = []
    with Memory(head, writable=False) as memory:
        about: ImageInfo = info(lib.df11_image_get_info, _c.df11_image_info, memory.address, memory.nbytes)
        for i in range(about.slice_count):
            out = _c.df11_slice()
            call(lib.df11_image_get_slice, memory.address, memory.nbytes, i, ct.byref(out))
            found.append(plain(out))
    return tuple(found)
