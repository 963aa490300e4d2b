"""Writes copies of a model whose config.json is nested as deeply as a reader may take, and deeper; prints their folders.

    nested.py MODEL FOLDER
"""
import json
import os
import shutil
import sys

# What is nested, in a regular expression or in JSON: its beginning, its middle, its end.
REGEX = [("(", "a", ")"), ("(?:", "a", ")*"), ("(a|b", "c", "|d)+"), ("[a", "b", "c]"), ("(?i:a[b-d]{2,3}|", "é", "){0,2}")]
DEPTHS = [10, 28, 29, 30, 31, 32, 60, 80, 100, 124, 127, 200, 249, 1000]

model, folder = sys.argv[1:]
with open(os.path.join(model, "config.json")) as file:
    config = json.load(file)
patterns = config["dfloat11_config"]["pattern_dict"]
texts = []
for depth in DEPTHS:
    for begin, middle, end in REGEX:
        config["dfloat11_config"]["pattern_dict"] = {**patterns, begin * depth + middle + end * depth: []}
        texts.append(json.dumps(config))
    config["dfloat11_config"]["pattern_dict"] = patterns
    for begin, middle, end in [("[", "", "]"), ('{"a":', "0", "}")]:
        texts.append(json.dumps(config)[:-1] + f', "nested": {begin * depth}{middle}{end * depth}}}')
for number, text in enumerate(texts):
    to = os.path.join(folder, str(number))
    shutil.copytree(model, to)
    with open(os.path.join(to, "config.json"), "w") as file:
        file.write(text)
    print(to)
