"""Experiments as data: a plan (TOML) is methods x data sets x shots x seeds; what its results lack is run.

plan.py       TOML -> Plan -> Jobs                 datasets.py   a name in a plan -> Splits
job.py        jobs of one training -> their rows   measure.py    what is measured on a trained method
results.py    the file of results                  runner.py     what is missing, run and written down
executors.py  processes of this machine, or Ray    summary.py    means over seeds, and the tables at the end
plans/        the ready plans
"""

from daptune.bench.plan import Experiment, Job, MethodRow, Plan, find_plan, ready_plans
from daptune.bench.results import Result, read_results

__all__ = ["Experiment", "Job", "MethodRow", "Plan", "Result", "find_plan", "read_results", "ready_plans"]
