"""The structs, constants and functions that ctypes has are those of the header, as a C compiler sees it."""

from __future__ import annotations

import ctypes as ct
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from support import ROOT

import df11
from df11 import _c

STRUCTS = [kind for kind in vars(_c).values() if isinstance(kind, type) and issubclass(kind, ct.Structure)]
CC = os.environ.get("CC", "cc")


def constants() -> dict[str, int]:
    return {
        **{name: value for name, value in vars(_c).items() if name.startswith("DF11_")},
        **{f"DF11_{status.name}": int(status) for status in df11.Status},
        **{f"DF11_DTYPE_{dtype.name}": int(dtype) for dtype in df11.DType},
    }


@pytest.mark.skipif(shutil.which(CC) is None and not os.environ.get("CI"), reason=f"missing: {CC}")
def test_a_c_compiler_sees_the_same(tmp_path: pathlib.Path) -> None:
    lines = []
    for kind in STRUCTS:
        name = kind.__name__
        lines.append((f"sizeof({name})", ct.sizeof(kind)))
        for field, _ in kind._fields_:
            lines.append((f"offsetof({name}, {field})", getattr(kind, field).offset))
            lines.append((f"sizeof((({name} *)0)->{field})", getattr(kind, field).size))
    lines += list(constants().items())
    source = tmp_path / "layout.c"
    body = "\n".join(f'printf("%llu\\n", (unsigned long long)({expression}));' for expression, _ in lines)
    source.write_text(f"#include <df11.h>\n#include <stdio.h>\nint main(void) {{\n{body}\nreturn 0; }}\n")
    program = tmp_path / "layout"
    subprocess.run([CC, f"-I{ROOT}/include", source, "-o", program], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    wrong = [(line, number) for line, number in zip(lines, map(int, said)) if line[1] != number]
    assert not wrong
    assert len(said) == len(lines) > 400


def test_everything_of_the_header_is_there() -> None:
    text = (ROOT / "include/df11.h").read_text()
    defined = {name for name in re.findall(r"#define (DF11_\w+) ", text) if not name.endswith("_INIT")}
    assert set(constants()) == defined
    declared = set(re.findall(r"^(?:const )?\w+ \*?(df11_\w+)\(", text, re.M))
    assert set(_c.FUNCTIONS) == declared
    assert len(declared) > 70
    assert {kind.__name__ for kind in STRUCTS} == set(re.findall(r"^\} (df11_\w+);", text, re.M))


def test_parameters_are_as_many_as_in_the_header() -> None:
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "include/df11.h").read_text(), flags=re.S)
    for name, (_, parameters) in _c.FUNCTIONS.items():
        declaration = re.search(rf"\b{name}\((.*?)\);", text, re.S)
        assert declaration is not None
        listed = declaration[1].strip()
        assert len(parameters) == (0 if listed == "void" else listed.count(",") + 1), name


def test_every_status_has_an_exception() -> None:
    from df11._library import error_of

    kinds = {status: type(error_of(status, "text")) for status in df11.Status if status != df11.Status.OK}
    assert len(set(kinds.values())) == len(kinds)
    assert df11.Error not in kinds.values()
    for status, kind in kinds.items():
        assert getattr(df11, kind.__name__) is kind
        error = error_of(status, "text", 5)
        assert (error.status, str(error), error.native_code) == (status, "text", 5)
    # What a newer library may return.
    assert type(error_of(299, "text")) is df11.DeviceError
    assert (type(error_of(99, "text")), error_of(99, "text").status) == (df11.Error, 99)
