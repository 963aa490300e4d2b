"""Loads libdf11, calls it, turns its errors into exceptions and its log into records of `logging`."""

from __future__ import annotations

import atexit
import collections
import ctypes as ct
import errno
import logging
import os
import threading
from typing import Any, Callable, NoReturn, Optional, Protocol, Union

from . import _c
from ._c import Status

StrPath = Union[str, "os.PathLike[str]", bytes, "os.PathLike[bytes]"]


class Error(Exception):
    """A call of the library failed. The subclasses are Python's exceptions of the same meaning, too."""

    status: int
    """The number of the status; `Status` names those that this version knows."""
    message: str
    """One sentence that names the file, the tensor and the byte where they are known."""
    native_code: int
    """The number that the system below gave: an errno, a CUresult, or 0."""

    def __init__(self, status: int, message: str, native_code: int = 0) -> None:
        super().__init__(message)
        self.status = Status(status) if status in _STATUSES else status
        self.message = message
        self.native_code = native_code
        if isinstance(self, OSError):
            OSError.__setattr__(self, "errno", native_code or None)
            OSError.__setattr__(self, "strerror", message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (int(self.status), self.message, self.native_code)

    def __str__(self) -> str:
        return self.message


class InvalidArgumentError(Error, ValueError):
    """An argument is out of range or contradicts another one, or what it belongs to is closed."""


class NotFoundError(Error, KeyError):
    """There is no group, tensor or preset of that name or number."""


class BufferTooSmallError(Error, ValueError):
    """A buffer holds fewer bytes than the result takes."""


class MisalignedError(Error, ValueError):
    """An address is not aligned as the call requires."""


class UnsupportedOptionError(Error, ValueError):
    """The library that is loaded does not know an option."""


class CancelledError(Error):
    """The call was cancelled."""


class DefaultStreamError(Error, ValueError):
    """The stream is 0, and the device was not opened to allow that."""


class ExistsError(Error, FileExistsError):
    """A file or folder of that name exists."""


class UnfinishedError(Error):
    """An earlier run left unfinished work there."""


class BusyError(Error):
    """Another process is writing there."""


class IoError(Error, OSError):
    """The operating system refused to open, read, map or write; `errno` says why."""


class FileMissingError(IoError, FileNotFoundError):
    """There is no such file or folder."""


class AccessError(IoError, PermissionError):
    """This user may not do that to the file."""


class FormatError(Error, ValueError):
    """A model cannot be used as it is: see the subclasses."""


class InvalidFormatError(FormatError):
    """The file is no safetensors file, or no DF11 model, or lacks something."""


class UnsupportedFormatError(FormatError):
    """The model is of a kind that this version cannot decode."""


class CorruptError(FormatError):
    """Parts of the model contradict each other, or `verify` found something wrong."""

    result: Any = None
    """After `verify`: all that was found, a `Verified`."""


class DeviceError(Error, RuntimeError):
    """A call on a CUDA device failed: see the subclasses."""


class NoDriverError(DeviceError):
    """There is no usable CUDA driver."""


class NoKernelError(DeviceError):
    """There is no kernel for this device."""


class CudaError(DeviceError):
    """A CUDA call failed; `native_code` is its CUresult."""


class CapturingError(DeviceError):
    """The call is not allowed while a stream is being captured."""


class WrongDeviceError(DeviceError):
    """A handle belongs to another device or context."""


class OutOfMemoryError(Error, MemoryError):
    """The memory that the call needs could not be allocated."""


class InternalError(Error, RuntimeError):
    """The library has a bug; please report it."""


_STATUSES = {int(status) for status in Status}
_EXCEPTIONS: dict[int, type[Error]] = {
    Status.INVALID_ARGUMENT: InvalidArgumentError,
    Status.NOT_FOUND: NotFoundError,
    Status.BUFFER_TOO_SMALL: BufferTooSmallError,
    Status.MISALIGNED: MisalignedError,
    Status.UNSUPPORTED_OPTION: UnsupportedOptionError,
    Status.CANCELLED: CancelledError,
    Status.DEFAULT_STREAM: DefaultStreamError,
    Status.EXISTS: ExistsError,
    Status.UNFINISHED: UnfinishedError,
    Status.BUSY: BusyError,
    Status.IO: IoError,
    Status.INVALID_FORMAT: InvalidFormatError,
    Status.UNSUPPORTED_FORMAT: UnsupportedFormatError,
    Status.CORRUPT: CorruptError,
    Status.NO_DRIVER: NoDriverError,
    Status.NO_KERNEL: NoKernelError,
    Status.CUDA: CudaError,
    Status.CAPTURING: CapturingError,
    Status.WRONG_DEVICE: WrongDeviceError,
    Status.OUT_OF_MEMORY: OutOfMemoryError,
    Status.INTERNAL: InternalError,
}


def error_of(status: int, message: str, native_code: int = 0) -> Error:
    """Returns the exception of a status; one that this version does not know is of the class of its range."""
    kind: type[Error] = _EXCEPTIONS.get(status, DeviceError if 200 <= status < 300 else Error)
    if kind is IoError:
        kind = {errno.ENOENT: FileMissingError, errno.EACCES: AccessError, errno.EPERM: AccessError}.get(
            native_code, kind
        )
    return kind(status, message, native_code)


def invalid(message: str) -> InvalidArgumentError:
    """Returns the exception for arguments that this package refuses by itself."""
    return InvalidArgumentError(Status.INVALID_ARGUMENT, message)


def _load() -> tuple[ct.CDLL, str]:
    """Loads the library: the one that DF11_LIBRARY names, else the package's own, else the system's."""
    abi = f"{_c.DF11_VERSION_MAJOR}" if _c.DF11_VERSION_MAJOR else f"0.{_c.DF11_VERSION_MINOR}"
    path = os.environ.get("DF11_LIBRARY") or os.path.join(os.path.dirname(__file__), "libdf11.so")
    if not os.environ.get("DF11_LIBRARY") and not os.path.exists(path):
        path = f"libdf11.so.{abi}"
    try:
        library = ct.CDLL(path)
    except OSError as e:
        raise ImportError(f"cannot load {path}: {e}. DF11_LIBRARY may name the library of `make install`") from e
    for name, (result, parameters) in _c.FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"{path} has no {name}: it is of another version than this package") from None
        function.restype, function.argtypes = result, parameters
    version = library.df11_version_number()
    if version // 100 != _c.DF11_VERSION_NUMBER // 100:
        found = f"{version // 10000}.{version // 100 % 100}"
        raise ImportError(f"{path} is of version {found}, and this package is for {abi}")
    return library, path


lib, library_path = _load()

_log = logging.getLogger("df11")
_pending: collections.deque[tuple[int, bytes]] = collections.deque()
_LEVELS = {
    _c.DF11_LOG_ERROR: logging.ERROR,
    _c.DF11_LOG_WARN: logging.WARNING,
    _c.DF11_LOG_INFO: logging.INFO,
    _c.DF11_LOG_DEBUG: logging.DEBUG,
    _c.DF11_LOG_TRACE: logging.DEBUG // 2,
}


# Runs on threads of the library, which have small stacks, and inside its calls: so it only keeps the line, and the
# thread that made the call logs it when the call has returned. Handlers of `logging` may then do what they like, also
# call this library.
def _receive(_user: Any, level: int, message: bytes, _length: int) -> None:
    _pending.append((level, message))


_receiver = _c.df11_log_fn(_receive)


def _drain() -> None:
    while True:
        try:
            level, message = _pending.popleft()
        except IndexError:
            return
        _log.log(_LEVELS.get(level, logging.DEBUG), "%s", message.decode("utf-8", "replace"))


def set_log_level(level: int) -> None:
    """Says which lines of the library's log reach the logger "df11": those of a level of `logging` and above.

    At first these are warnings and errors. Lines below logging.DEBUG (10) are what the library calls a trace. A level
    above logging.CRITICAL ends the log.
    """
    wanted = [ours for ours, theirs in _LEVELS.items() if theirs >= level]
    if wanted:
        lib.df11_log_set(_receiver, max(wanted), None)
    else:
        lib.df11_log_set(_c.df11_log_fn(), _c.DF11_LOG_OFF, None)


set_log_level(logging.WARNING)
# No line may arrive when the interpreter is gone.
atexit.register(set_log_level, logging.CRITICAL + 1)


def call(function: Callable[..., Any], *arguments: Any) -> None:
    """Calls a function of the library whose last parameter is the error, and raises what that says."""
    error = _c.df11_error()
    status = function(*arguments, ct.byref(error))
    if _pending:
        _drain()
    if status:
        _raise(error)


def _raise(error: _c.df11_error) -> NoReturn:
    raise error_of(error.status, error.message.decode("utf-8", "replace"), error.native_code)


def text(value: str) -> bytes:
    """Returns a name as the library takes it."""
    encoded = value.encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise invalid("a name cannot have a zero byte")
    return encoded


def path_text(path: StrPath) -> bytes:
    """Returns a path as the library takes it."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise invalid("a path cannot have a zero byte")
    return encoded


def optional(value: Optional[str]) -> Optional[bytes]:
    return None if value is None else text(value)


def struct(kind: type[ct.Structure], **fields: Any) -> Any:
    """Returns a struct as its _INIT macro makes it, with some fields set."""
    return kind(struct_size=ct.sizeof(kind), **fields)


def plain(value: ct.Structure) -> Any:
    """Copies an info or report to its named tuple."""
    kind, fields = _c.TUPLES[type(value)]
    return kind(*[_FIELDS[how](value, name, count) for name, how, count in fields])


def _text_of(value: Any, name: str, _count: str) -> Optional[str]:
    raw = getattr(value, name)
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def _maybe_of(value: Any, name: str, none: str) -> Optional[int]:
    number: int = getattr(value, name)
    return None if number == getattr(_c, none) else number


def _path_of(value: Any, name: str, _count: str) -> Optional[str]:
    raw = getattr(value, name)
    return None if raw is None else os.fsdecode(raw)


def _list_of(value: Any, name: str, count: str) -> tuple[int, ...]:
    return tuple(getattr(value, name)[: getattr(value, count)]) if getattr(value, count) else ()


def _slices_of(value: Any, name: str, count: str) -> tuple[_c.Slice, ...]:
    return tuple(plain(getattr(value, name)[i]) for i in range(getattr(value, count)))


_FIELDS: dict[str, Callable[[Any, str, str], Any]] = {
    "number": lambda value, name, _count: getattr(value, name),
    "address": lambda value, name, _count: getattr(value, name) or 0,
    "maybe": _maybe_of,
    "text": _text_of,
    "path": _path_of,
    "list": _list_of,
    "slices": _slices_of,
}


def info(function: Callable[..., Any], kind: type[ct.Structure], *arguments: Any) -> Any:
    """Calls a function that describes something, and returns the named tuple."""
    out = struct(kind)
    call(function, *arguments, ct.byref(out))
    return plain(out)


def default_threads(threads: Optional[int]) -> int:
    """Returns a number of threads: without one, as many as this process has processors."""
    if threads is None:
        try:
            return len(os.sched_getaffinity(0))
        except AttributeError:
            return os.cpu_count() or 1
    if not 0 <= threads <= 65536:
        raise invalid(f"{threads} threads")
    return threads


class Handle:
    """An object of the library, which is freed when it is closed and no call uses it any more, or with this object.

    `with handle as pointer:` is a call that uses it.
    """

    __slots__ = ("_closed", "_free", "_keep", "_lock", "_pointer", "_users", "_what")

    def __init__(self, what: str, pointer: int, free: Callable[[int], Any], keep: Any = None) -> None:
        self._what = what
        self._pointer = pointer
        self._free = free
        self._keep = keep  # what must live as long, such as the memory of a model
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def __enter__(self) -> int:
        with self._lock:
            if self._closed:
                raise invalid(f"the {self._what} is closed")
            self._users += 1
        return self._pointer

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            self._end()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._lock:
            last = not self._closed and self._users == 0
            self._closed = True
        if last:
            self._end()

    def _end(self) -> None:
        self._free(self._pointer)
        self._keep = None

    def __del__(self) -> None:
        # What a thread is still using when the interpreter ends is left alone.
        if not self._closed and self._users == 0:
            self._closed = True
            self._end()


class Closing:
    """What has a handle: it can be closed, and is, at the end of a `with`."""

    _handle: Handle

    def close(self) -> None:
        """Frees what the library holds, when no call of another thread uses it any more. It may be called again."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle.closed

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProgressFunction(Protocol):
    """What is told of progress: bytes of the work that are done and that there are (0: not known yet)."""

    def __call__(self, done: int, total: int) -> object: ...


class Progress:
    """The progress of a long call. Any thread may ask how far it is, and cancel it. It serves one call at a time."""

    def __init__(self, callback: Optional[ProgressFunction] = None) -> None:
        out = ct.c_void_p()
        call(lib.df11_progress_new, ct.byref(out))
        self._handle = Handle("progress", out.value or 0, lib.df11_progress_free)
        self._callback = callback

    @property
    def done(self) -> int:
        """Bytes of the work that are done."""
        return self._get()[0]

    @property
    def total(self) -> int:
        """Bytes of the work that there are; 0 while that is not known."""
        return self._get()[1]

    def cancel(self) -> None:
        """Cancels the call, which raises a CancelledError. This cannot be undone."""
        with self._handle as pointer:
            lib.df11_progress_cancel(pointer)

    def _get(self) -> tuple[int, int]:
        done, total = ct.c_uint64(), ct.c_uint64()
        with self._handle as pointer:
            lib.df11_progress_get(pointer, ct.byref(done), ct.byref(total))
        return done.value, total.value

    def _tell(self) -> None:
        if self._callback is not None:
            self._callback(*self._get())


ProgressLike = Union[None, bool, ProgressFunction, Progress]


class _Bar:
    """A bar of tqdm."""

    def __init__(self, make: Any, description: str) -> None:
        self._bar = make(total=None, unit="B", unit_scale=True, desc=description)

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def run(description: str, progress: ProgressLike, work: Callable[[int], None]) -> None:
    """Makes a long call, `work`, which is given the address of a progress.

    The call is made on a thread of its own, so that this one can tell of the progress, and cancel the call when an
    exception comes: that of a callback, or KeyboardInterrupt.
    """
    bar = None
    if progress is True:
        try:
            from tqdm.auto import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]

            bar = _Bar(tqdm, description)
            token = Progress(bar)
        except ImportError:
            token = Progress()
    elif isinstance(progress, Progress):
        token = progress
    else:
        token = Progress(progress or None)
    failure: list[BaseException] = []
    done = threading.Event()

    def target() -> None:
        try:
            with token._handle as pointer:
                work(pointer)
        except BaseException as e:
            failure.append(e)
        finally:
            done.set()

    thread = threading.Thread(target=target, name="df11")
    thread.start()
    try:
        while not done.wait(0.05):
            if _pending:
                _drain()
            token._tell()
        if not failure:
            token._tell()
    except BaseException:
        token.cancel()
        raise
    finally:
        thread.join()
        if bar is not None:
            bar.close()
    if failure:
        raise failure[0]
