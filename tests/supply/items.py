#!/usr/bin/env python3
"""Compares the public items of the Rust library with the list in items.txt: items.py [--write] DOC

DOC is the folder of its documentation, target/doc/df11, made with the features that docs.rs has. A change of the public
interface is thus a change of items.txt, and no item becomes public by accident.
"""
import difflib
import pathlib
import re
import sys

LIST = pathlib.Path(__file__).with_name("items.txt")


def items(doc: pathlib.Path) -> list[str]:
    """Returns the kind and the path of each public item."""
    found = []
    text = (doc / "all.html").read_text()
    for kind, section in re.findall(r'<h3 id="([a-z]+)">.*?</h3><ul class="all-items">(.*?)</ul>', text):
        found += [f"{kind} {path}" for path in re.findall(r'<a href="[^"]*">([^<]+)</a>', section)]
    return sorted(found)


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    found = items(pathlib.Path(arguments[0]))
    if not found:
        print(f"items.py: no items in {arguments[0]}", file=sys.stderr)
        return 1
    if "--write" in sys.argv:
        LIST.write_text("\n".join(found) + "\n")
        return 0
    expected = LIST.read_text().split("\n")[:-1]
    difference = list(difflib.unified_diff(expected, found, "tests/supply/items.txt", "the documentation", lineterm=""))
    print("\n".join(difference + [f"items.py: {len(found)} public items"]))
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
