"""Which small changes of the code no test notices: `make mutants`.

mutmut changes one operator, number, argument or assignment at a time inside a function, and runs the tests that call
the function. A change that no test fails for has survived: write a test that fails, or explain it in docs/testing.md.
Each file is looked at by itself, with the test files that belong to it, and ends in a row of a table.

    python tools/mutants.py                     # every file of FILES; goes on where it was stopped
    python tools/mutants.py losses dapt         # some
    python tools/mutants.py --again losses      # the survivors anew, after tests were added
    python tools/mutants.py --show losses       # the table alone, and each survivor as a difference
    python tools/mutants.py --folder /var/m     # copies and results elsewhere than in build/mutants

Not changed: class bodies and decorated functions (mutmut leaves them out), annotations, docstrings, and statements that
raise or log.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    "losses": ("methods/losses.py", ["methods/test_losses.py"]),
    "support": ("methods/support.py", ["methods/test_support.py"]),
    "fewshot": ("data/fewshot.py", ["data/test_fewshot.py"]),
    "dapt": ("methods/dapt.py", ["methods/test_dapt.py"]),
    "text_prompts": ("methods/text_prompts.py", ["methods/test_text_prompts.py"]),
    "schedule": ("train/schedule.py", ["train/test_schedule.py"]),
    "metrics": ("metrics.py", ["test_metrics.py"]),
    "prefix": ("clip/prefix.py", ["clip/test_prefix.py"]),
    "loop": ("train/loop.py", ["train/test_loop.py"]),
}
"""File -> the tests that are to notice a change of it, fast enough to run for every change."""
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/daptune/{file}"]
pytest_add_cli_args_test_selection = [{tests}]
do_not_mutate_patterns = ['^ *raise ', '^ *(_log|log)\\.']
process_isolation = "forkserver"
track_dependencies = false
use_git_change_detection = false
timeout_constant = 20.0
"""
SURVIVED, NO_TEST, NOT_RUN = (
    (0, 5),
    (33,),
    (None, 34),
)  # exit codes that mutmut writes down; all others are tests' failures


class Room:
    """A folder in which mutmut changes one file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.file, self.tests = FILES[name]
        self.name, self.folder = name, folder / name

    def prepare(self) -> None:
        """Sources and tests as they are now, and mutmut's settings for this file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("src", "tests"):
            link = self.folder / name
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / name)
        # which tests call which function, from an earlier run: functions that are new since then would have no tests
        (self.folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        tests = ", ".join(f'"tests/{test}"' for test in self.tests)
        config = (ROOT / "pyproject.toml").read_text("utf-8") + CONFIG.format(file=self.file, tests=tests)
        (self.folder / "pyproject.toml").write_text(config, "utf-8")

    def mutmut(self, *words: str, quiet: bool = False) -> str:
        """What a command of mutmut prints, which goes to log.txt otherwise."""
        # one thread: a process with threads of torch's own cannot be forked
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mutmut", *words]
        if quiet:
            return subprocess.run(
                command, cwd=self.folder, env=environment, check=True, text=True, stdout=subprocess.PIPE
            ).stdout
        with open(self.folder / "log.txt", "ab") as log:
            done = subprocess.run(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        if done.returncode:
            raise SystemExit(f"mutmut ended with {done.returncode}; see {self.folder / 'log.txt'}")
        return ""

    @property
    def results(self) -> dict[str, int | None]:
        """Exit codes by mutant."""
        place = self.folder / "mutants" / "src" / "daptune" / f"{self.file}.meta"
        found: dict[str, int | None] = (
            json.loads(place.read_text("utf-8"))["exit_code_by_key"] if place.exists() else {}
        )
        return found

    @property
    def survivors(self) -> list[str]:
        """Mutants that no test failed for."""
        return [name for name, code in self.results.items() if code in SURVIVED + NO_TEST]

    def row(self) -> str:
        """The file's row of the table."""
        codes = list(self.results.values())
        run = [code for code in codes if code not in NOT_RUN]
        killed = len(run) - len(self.survivors)
        share = f"{100 * killed / len(run):.1f} %" if run else "-"
        return f"| {self.file} | {len(codes)} | {len(codes) - len(run)} | {killed} | {len(self.survivors)} | {share} |"


def main() -> None:
    """Run what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", choices=[*FILES, []], help="which of the files; all without")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants", help="for copies and results")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--show", action="store_true", help="run nothing, show the survivors")
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    rooms = [Room(name, asked.folder.resolve()) for name in asked.files or FILES]
    for room in rooms:
        if asked.show:
            for name in room.survivors:
                print(room.mutmut("show", name, quiet=True))
            continue
        room.prepare()
        if names := room.survivors if asked.again else []:
            room.mutmut("run", "--max-children", str(asked.processes), *names)
        elif not asked.again:
            room.mutmut("run", "--max-children", str(asked.processes))
        print(room.row(), flush=True)
    print("\n| file | mutants | not run | killed | survived | killed of those run |\n|---|---|---|---|---|---|")
    print("\n".join(room.row() for room in rooms))


if __name__ == "__main__":
    main()
