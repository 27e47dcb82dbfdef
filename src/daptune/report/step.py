"""One thing that a report tells its reader to do."""

from dataclasses import dataclass

from daptune.report.html import Html, tag


@dataclass(frozen=True)
class Step:
    """A sentence, and the command for it if there is one."""

    text: str
    command: str = ""

    @property
    def line(self) -> str:
        return f"{self.text} {self.command}".rstrip()

    def to_html(self) -> Html:
        typed = tag("pre", tag("code", self.command)) if self.command else ""
        return tag("li", tag("p", self.text.replace(" %", "\u00a0%")), typed)
