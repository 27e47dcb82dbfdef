"""Ctrl-C while the program is being imported is one line and exit code 130."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except BaseException:
    raise ImportError("what libraries make of it")
"""


@pytest.mark.parametrize("module", ["cyclopts", "torch"])
def test_in_the_middle_of_an_import(module: str, tmp_path: Path) -> None:
    """Of a package that the command line needs, and of one that a command needs."""
    (tmp_path / f"{module}.py").write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "daptune", "methods"], env=environment, capture_output=True, text=True, cwd=tmp_path,
        preexec_fn=lambda: __import__("signal").signal(2, __import__("signal").default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (130, "daptune: interrupted\n", "")
