"""The command line's reference, from the program itself: what `daptune VERB --help` says, as Markdown.

`python -m tools.docs.command_line` prints it. It needs cyclopts and rich, and no torch.
"""

import re

UNSAID = re.compile(r" \*\[default: (?:\(\)|False)\]\*")
"""Defaults that say nothing: an option that may be repeated has none, and a switch is off."""
STARTED = re.compile(r"^(daptune(?: [a-z]+)*) -m \S+", re.MULTILINE)
"""cyclopts quotes the module that Python was started with; a user types the command."""


def reference() -> str:
    """A list of the commands, then each with its arguments and options; headings of the second and third level."""
    from daptune.cli import data, eval_, export, import_, methods, serve, sharing, show  # noqa: F401  they add commands
    from daptune.cli.app import app

    text = STARTED.sub(r"\1", UNSAID.sub("", app.generate_docs(output_format="markdown", usage_name="daptune")))
    _, commands = text.split("\n**Commands**:\n", 1)
    return commands.strip() + "\n"


if __name__ == "__main__":
    print(reference(), end="")
