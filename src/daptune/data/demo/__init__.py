"""The demo pictures that come with the package: photographs of two data sets, and emoji in four art styles.

The photographs are of 20 classes of Caltech101 and of the 10 of EuroSAT, from the support (training) and test splits
of the official files. Of the emoji, the first style is the source: it has support, validation and test splits that
share no emoji (variants of one emoji stay together). The other styles are domains: they have a test split alone, of
emoji that no support split holds. Whose work all this is, and under which licence, is in `ATTRIBUTION.md` beside this
file.
"""

from pathlib import Path
from zipfile import ZipFile

ARCHIVE = Path(__file__).with_name("demo.zip")
"""The emoji."""
PHOTO_ARCHIVE = Path(__file__).with_name("photographs.zip")
ATTRIBUTION = Path(__file__).with_name("ATTRIBUTION.md")
_STYLES = ("fluent-emoji-flat", "fluent-emoji", "fluent-emoji-high-contrast", "fxemoji")
_SETS = ("caltech101", "eurosat")


def demo_styles() -> tuple[str, ...]:
    """Names of the emoji's art styles: the source, then the domains."""
    return _STYLES


def photograph_sets() -> tuple[str, ...]:
    """Names of the data sets that the photographs are from."""
    return _SETS


def extract_demo(folder: str | Path, archive: Path = ARCHIVE) -> Path:
    """Write the pictures to `folder/<style or set>/<split>/<class>/<name>.webp` and return `folder`.

    Files that are there already with the right size are kept, so a second call costs nothing.
    """
    root = Path(folder)
    with ZipFile(archive) as packed:
        for entry in packed.infolist():
            target = root / entry.filename
            if not target.is_file() or target.stat().st_size != entry.file_size:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(entry))
    (root / ATTRIBUTION.name).write_text(ATTRIBUTION.read_text(encoding="utf-8"), encoding="utf-8")
    return root
