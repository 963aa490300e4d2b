"""Marks a wheel that has the library in it as one for the systems on which the library runs."""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        tag = os.environ.get("DF11_WHEEL_TAG")
        # Without one the wheel has Python files only, and finds the library of the system.
        if tag:
            build_data["tag"] = tag
            build_data["pure_python"] = False
