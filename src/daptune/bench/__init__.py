"""Benchmarks: a plan (TOML) is methods x data sets x shots x seeds; its missing results are computed.

plan.py       TOML -> Plan -> Jobs                 datasets.py   data set name -> Splits
job.py        jobs of one training -> results      measure.py    measurements on a trained method
results.py    the results file                     runner.py     runs the missing jobs
executors.py  local processes, or Ray              summary.py    means over seeds, printed tables
plans/        plans that come with the package
"""

from daptune.bench.plan import Experiment, Job, MethodRow, Plan, find_plan, ready_plans
from daptune.bench.results import Result, read_results

__all__ = ["Experiment", "Job", "MethodRow", "Plan", "Result", "find_plan", "read_results", "ready_plans"]
