"""The 11 data sets of the paper and its 4 targets, in the folders of KaiyangZhou/CoOp's DATASETS.md.

registry.py   the records: folders, counts, addresses      layouts.py   a small reader a layout
splits.py     splits drawn as the official code does       reading.py   `read_benchmark`, `base_and_new`
inventory.py  what is there against what was published    pickles.py   official few-shot draws, without running code
prepare.py    what can be fetched, with fetch.py (a file, resumed and checksummed) and unpack.py (archives, safely)
"""

from daptune.data.benchmarks.reading import base_and_new, data_root, read_benchmark
from daptune.data.benchmarks.registry import BENCHMARKS, Benchmark, find

__all__ = ["BENCHMARKS", "Benchmark", "base_and_new", "data_root", "find", "read_benchmark"]
