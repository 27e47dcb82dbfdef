"""A small plan on made-up pictures, and an executor in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from daptune.bench.executors import Executor, Group, Setting
from daptune.bench.job import Outcome
from daptune.bench.plan import Plan, parse_plan

TEXT = """
name = "small"
backbone = "{backbone}"
precision = "fp32"
datasets = ["{pictures}"]
shots = [1, 2]
seeds = [1, 2]
methods = [
  "zero_shot",
  {{ method = "coop_vpt", options = {{ text_tokens = 2, vision_tokens = 2 }} }},
]
train = {{ epochs = 2, batch_size = 4 }}
"""


def small_plan(backbone: str, pictures: Path, extra: str = "") -> Plan:
    """Two methods x two shots x two seeds; `extra` is put in front."""
    return parse_plan(extra + TEXT.format(backbone=backbone, pictures=pictures), "small")


class InThisProcess(Executor):
    """Runs jobs one after another; `given` are those that it was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.given: list[Group] = []
        self.stop_after = stop_after

    def run(self, groups: Sequence[Group], setting: Setting) -> Iterator[tuple[Group, list[Outcome]]]:
        for group in groups:
            if self.stop_after is not None and len(self.given) >= self.stop_after:
                raise KeyboardInterrupt
            self.given.append(group)
            yield group, setting.work(group, setting.root, setting.device)
