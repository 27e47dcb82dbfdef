"""`python -m daptune` is the same as `daptune`."""

from daptune.interrupts import end_imports_at_once

end_imports_at_once()  # before the imports of the command line, which take a moment

from daptune.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
