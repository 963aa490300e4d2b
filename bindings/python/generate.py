#!/usr/bin/env python3
"""Writes src/df11/_c.py from include/df11.h: constants, structs and functions for ctypes, a named tuple for each info.

    generate.py            writes the module
    generate.py --check    fails if the module is not what would be written

The header is itself generated, so that its form is known: a line that is not understood is an error, never skipped.
"""

from __future__ import annotations

import pathlib
import re
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE / "../../include/df11.h"
MODULE = HERE / "src/df11/_c.py"

# What a comment looks like, and a declaration after one.
COMMENT = re.compile(r"/\*\*(.*?)\*/", re.S)
DEFINE = re.compile(r"#define (DF11_\w+) (.+)")
STRUCT = re.compile(r"typedef struct (\w+) \{\n(.*?)\n\} (\w+);", re.S)
FIELD = re.compile(r"(?:/\*\*(?P<doc>.*?)\*/\s*)?(?P<type>[^;{}/]*?[ *])(?P<name>\w+)(?P<array>\[\d+\])?;", re.S)
OPAQUE = re.compile(r"typedef struct (\w+) (\w+);")
CALLBACK = re.compile(r"typedef (\w+) \(\*(\w+)\)\((.*?)\);", re.S)
ALIAS = re.compile(r"typedef ([\w ]+?(?: \*)?) ?(df11_\w+);")
FUNCTION = re.compile(r"^((?:const )?\w+ \*?)(df11_\w+)\((.*?)\);", re.S | re.M)

SCALARS = {
    "int32_t": "c_int32", "uint32_t": "c_uint32", "uint16_t": "c_uint16", "uint64_t": "c_uint64", "size_t": "c_size_t",
    "float": "c_float", "unsigned long long": "c_ulonglong",
}  # fmt: skip
# The field that counts the elements of a list in an info.
COUNTS = {"shape": "rank", "tensor_ends": "tensor_count", "slices": "slice_count"}
# Numbers that are None in Python if they have the value of a constant.
NONES = {
    ("df11_group_info", "first_tensor"): "DF11_NO_TENSOR",
    ("df11_tensor_info", "group"): "DF11_NO_GROUP",
    ("df11_plan_info", "cache_bytes_per_token"): "DF11_PLAN_NONE",
    ("df11_plan_share_info", "cache_bytes_per_token"): "DF11_PLAN_NONE",
}
# Texts that are paths, which may be any bytes.
PATHS = {"file", "libcuda"}
# Structs that Python code sees as named tuples, besides those whose names end in _info and _report.
TUPLES = {"df11_slice"}


class Header:
    """What the header declares, in its order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.opaque: set[str] = set()
        self.aliases: dict[str, str] = {}
        self.callbacks: dict[str, tuple[str, list[str]]] = {}
        self.structs: dict[str, list[tuple[str, str, str]]] = {}
        self.docs: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.functions: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        body = text[text.index('extern "C" {\n#endif') :]
        self._docs(body)
        # Structs first, because what is inside them looks like other declarations.
        for match in STRUCT.finditer(body):
            self.structs[match[3]] = self._fields(match[2])
        for name, value in DEFINE.findall(body):
            if not name.endswith("_INIT"):
                self.constants[name] = str(2**64 - 1 if value.strip() == "UINT64_MAX" else int(value))
        bare = COMMENT.sub("", STRUCT.sub("", body))
        for name, args, params in CALLBACK.findall(bare):
            self.callbacks[args] = (name, [self._parameter(p)[0] for p in self._split(params)])
        for _tag, name in OPAQUE.findall(bare):
            if name not in self.structs:
                self.opaque.add(name)
        for target, name in ALIAS.findall(bare):
            if not target.startswith("struct ") or target.endswith("*"):
                self.aliases[name] = target.strip()
        for result, name, params in FUNCTION.findall(bare):
            self.functions[name] = (result.strip(), [self._parameter(p) for p in self._split(params)])
        missed = set(re.findall(r"\b(df11_\w+)\(", bare)) - set(self.functions)
        if missed:
            raise SystemExit(f"functions that were not understood: {missed}")

    def _docs(self, body: str) -> None:
        for match in re.finditer(r"/\*\*((?:(?!\*/).)*)\*/\n(?:typedef struct (\w+)|#define (\w+))", body, re.S):
            self.docs[match[2] or match[3]] = plain(match[1])

    def _fields(self, body: str) -> list[tuple[str, str, str]]:
        found, at = [], 0
        for match in FIELD.finditer(body):
            if body[at : match.start()].strip():
                raise SystemExit(f"not understood: {body[at : match.start()]!r}")
            at = match.end()
            c = " ".join(match["type"].split()) + (match["array"] or "")
            found.append((match["name"], c, plain(match["doc"] or "")))
        if body[at:].strip():
            raise SystemExit(f"not understood: {body[at:]!r}")
        return found

    @staticmethod
    def _split(params: str) -> list[str]:
        params = " ".join(params.split())
        return [] if params == "void" else [p.strip() for p in params.split(",")]

    @staticmethod
    def _parameter(param: str) -> tuple[str, str]:
        match = re.fullmatch(r"(.*?)(\w+)", param)
        if match is None:
            raise SystemExit(f"not understood: {param!r}")
        return match[1].strip(), match[2]

    def ctype(self, c: str) -> str:
        """Returns a C type as ctypes has it. Addresses of bytes and handles are numbers."""
        array = re.fullmatch(r"char\[(\d+)\]", c)
        if array:
            return f"ct.c_char * {array[1]}"
        c = c.replace("const ", "").replace(" const", "").strip()
        base = c.rstrip("* ").strip().removeprefix("struct ")
        stars = c.count("*")
        if base in self.callbacks:
            return base
        if base in self.aliases and stars == 0:
            target = self.aliases[base]
            return "ct.c_void_p" if target.endswith("*") else self.ctype(target)
        if base == "char" and stars:
            return "ct.c_char_p" if stars == 1 else "ct.POINTER(ct.c_char_p)"
        if base in self.structs and stars:
            return f"ct.POINTER({base})"
        if base == "void" or base in self.opaque:
            return ("ct.c_void_p", "ct.POINTER(ct.c_void_p)")[stars - 1]
        if base in ("uint16_t", "float") and stars:
            return "ct.c_void_p"
        name = f"ct.{SCALARS[self.aliases.get(base, base)]}"
        return f"ct.POINTER({name})" if stars else name


def plain(doc: str) -> str:
    """Returns a comment's text on one line a paragraph."""
    lines = [line.strip().removeprefix("*").strip() for line in doc.strip().splitlines()]
    return "\n\n".join(" ".join(p.split()) for p in "\n".join(lines).split("\n\n")).strip()


def wrapped(text: str, indent: str) -> str:
    lines = textwrap.wrap(text, 110 - len(indent), break_long_words=False, break_on_hyphens=False)
    return f"\n{indent}".join(lines)


def python_type(struct: str, name: str, c: str) -> str:
    """Returns the type of a field of a named tuple, as Python code sees it."""
    if (struct, name) in NONES:
        return "Optional[int]"
    if name in COUNTS:
        return "tuple[Slice, ...]" if name == "slices" else "tuple[int, ...]"
    if "char *" in c:
        # Only names are always there.
        return "str" if name in ("name", "kernels", "libcuda", "pattern_json") else "Optional[str]"
    return "int"


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.removeprefix("df11_").split("_"))


def enumeration(header: Header, python: str, prefix: str, names: list[str], doc: str) -> list[str]:
    out = ["", "", f"class {python}(enum.IntEnum):", f'    """{doc}"""', ""]
    for name in names:
        out += [f"    {name.removeprefix(prefix)} = {header.constants[name]}"]
        if name in header.docs:
            out += [f'    """{wrapped(header.docs[name], "    ")}"""']
    return out


def generated() -> str:
    text = HEADER.read_text(encoding="utf-8")
    header = Header(text)
    statuses_at = text.index("2. STATUSES AND ERRORS"), text.index("3. LOG")
    statuses = [n for n in re.findall(r"#define (DF11_\w+)", text[slice(*statuses_at)]) if n in header.constants]
    dtypes = [n for n in header.constants if n.startswith("DF11_DTYPE_")]
    out = [
        '"""The C interface of libdf11 for ctypes. Generated from include/df11.h by generate.py; do not edit."""',
        "from __future__ import annotations",
        "",
        "import ctypes as ct",
        "import enum",
        "from typing import Any, NamedTuple, Optional",
        "",
    ]
    for name, value in header.constants.items():
        if name not in statuses and name not in dtypes:
            out.append(f"{name} = {value}")
    out += enumeration(header, "Status", "DF11_", statuses, "The result of a call.")
    out += enumeration(header, "DType", "DF11_DTYPE_", dtypes, "The type of a tensor's elements.")
    out += [""]
    for name, (result, params) in header.callbacks.items():
        kinds = ["None" if result == "void" else header.ctype(result), *(header.ctype(p) for p in params)]
        out.append(f"\n{name} = ct.CFUNCTYPE({', '.join(kinds)})")
    for name, fields in header.structs.items():
        out += ["", "", f"class {name}(ct.Structure):"]
        # For the type checker: what an attribute gives is a number, a text or a pointer.
        out += [f"    {field}: Any" for field, _, _ in fields]
        out += ["    _fields_ = ["]
        out += [f'        ("{field}", {header.ctype(c)}),' for field, c, _ in fields]
        out += ["    ]"]
    order = sorted(header.structs, key=lambda name: name != "df11_slice")
    tuples = [name for name in order if name.endswith(("_info", "_report")) or name in TUPLES]
    for name in tuples:
        doc = re.sub(r" ?Begin with DF11_\w+\.", "", header.docs[name])
        out += ["", "", f"class {camel(name)}(NamedTuple):", f'    """{wrapped(doc, "    ")}"""', ""]
        for field, c, doc in header.structs[name]:
            if field in ("struct_size", "reserved"):
                continue
            out += [f"    {field}: {python_type(name, field, c)}"]
            out += [f'    """{wrapped(doc, "    ")}"""'] if doc else []
    out += [
        "",
        "",
        "# For each struct its tuple, and of each field its name, its kind, and what counts it or stands for None.",
    ]
    out += ["TUPLES: dict[type[ct.Structure], tuple[Any, tuple[tuple[str, str, str], ...]]] = {"]
    for name in tuples:
        out += [f"    {name}: (", f"        {camel(name)},", "        ("]
        for field, c, _ in header.structs[name]:
            if field in ("struct_size", "reserved"):
                continue
            kind = "slices" if field == "slices" else "list" if field in COUNTS else "number"
            if "char *" in c:
                kind = "path" if field in PATHS else "text"
            elif kind == "number" and "*" in c:
                kind = "address"
            if (name, field) in NONES:
                out += [f'            ("{field}", "maybe", "{NONES[name, field]}"),']
                continue
            out += [f'            ("{field}", "{kind}", "{COUNTS.get(field, "")}"),']
        out += ["        ),", "    ),"]
    out += ["}", "", "# Result and parameters of each function."]
    out += ["FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {"]
    for name, (result, params) in header.functions.items():
        kinds = [header.ctype(c) for c, _ in params]
        out += [f'    "{name}": (']
        out += [f"        {'None' if result == 'void' else header.ctype(result)},", "        ("]
        out += [f"            {kind}," for kind in kinds]
        out += ["        ),", "    ),"]
    out += ["}"]
    return "\n".join(out) + "\n"


def main() -> int:
    text = generated()
    if sys.argv[1:] == ["--check"]:
        if MODULE.read_text(encoding="utf-8") != text:
            print(f"{MODULE} is of another header: run bindings/python/generate.py", file=sys.stderr)
            return 1
        return 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    MODULE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
