#!/usr/bin/env python3
"""Runs convert_hf_to_gguf.py of llama.cpp, as it is, with Debian's PyTorch: convert.py CONVERTER ARGUMENT...

Its table of types names two of 8 bits, which Debian's PyTorch 1.13 is too old for. No model here has them.
"""
import runpy
import sys

import torch

for name in ("float8_e4m3fn", "float8_e5m2"):
    if not hasattr(torch, name):
        setattr(torch, name, None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
