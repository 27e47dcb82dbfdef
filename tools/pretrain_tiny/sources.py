"""What the pretraining reads: packages of the npm registry, pinned, with their roles and licences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Licences were read from `info.license` of each package. Share-alike art is left out, and so are logos and flags.


@dataclass(frozen=True)
class IconSet:
    """One art style: package `@iconify-json/<name>`, how often it is drawn, and which of its icons are kept."""

    name: str
    version: str
    role: str  # "emoji", "colour" or "mono" are trained on; "heldout" is never seen
    weight: float = 0.0
    keep: str = ""  # regular expression on the icon's name
    strip: str = ""  # regular expression removed from the name


ICON_SETS = (
    IconSet("noto", "1.2.9", "emoji", 0.13),
    IconSet("noto-v1", "1.2.5", "emoji", 0.11),
    IconSet("twemoji", "1.2.5", "emoji", 0.13),
    IconSet("emojione", "1.2.3", "emoji", 0.12),
    IconSet("emojione-monotone", "1.2.1", "emoji", 0.07),
    IconSet("streamline-emojis", "1.2.4", "emoji", 0.06),
    IconSet("flat-color-icons", "1.2.3", "colour", 0.008),
    IconSet("fluent-color", "1.2.21", "colour", 0.008, r"-(32|48)$", r"-(32|48)$"),
    IconSet("icon-park", "1.2.4", "colour", 0.02),
    IconSet("streamline-color", "1.2.2", "colour", 0.012, r"^(?!.*-flat$)"),
    IconSet("streamline-plump-color", "1.2.2", "colour", 0.012, "", r"-flat$"),
    IconSet("streamline-sharp-color", "1.2.2", "colour", 0.006, "", r"-flat$"),
    IconSet("streamline-ultimate-color", "1.2.2", "colour", 0.015),
    IconSet("streamline-freehand-color", "1.2.2", "colour", 0.012),
    IconSet("streamline-kameleon-color", "1.2.2", "colour", 0.012),
    IconSet("streamline-cyber-color", "1.2.2", "colour", 0.006),
    IconSet("mdi", "1.2.3", "mono", 0.03, r"^(?!alpha-|numeric-|.*-outline$)"),
    IconSet(
        "tabler", "1.2.41", "mono", 0.02, r"^(?!brand-|letter-|number-|hexagon-|circle-(letter|number))", r"-filled$"
    ),
    IconSet("ph", "1.2.2", "mono", 0.03, r"^(?!.*(-light|-thin|-bold)$)", r"-(fill|duotone)$"),
    IconSet("game-icons", "1.2.4", "mono", 0.03, r"^(?!abstract-)"),
    IconSet("material-symbols", "1.2.98", "mono", 0.015, r"^(?!.*-(rounded|sharp|outline)($|-))"),
    IconSet("lucide", "1.2.137", "mono", 0.015),
    IconSet("carbon", "1.2.29", "mono", 0.01, r"^(?!logo-)"),
    IconSet("fluent", "1.2.60", "mono", 0.02, r"-24-(filled|regular)$", r"-24-(filled|regular)$"),
    IconSet("solar", "1.2.13", "mono", 0.012, r"-bold-duotone$", r"-bold-duotone$"),
    IconSet("healthicons", "1.2.13", "mono", 0.01, r"^(?!.*(-negative|-24px|-outline)$)"),
    IconSet("iconoir", "1.2.11", "mono", 0.01),
    IconSet("uil", "1.2.3", "mono", 0.008),
    IconSet("fa6-solid", "1.2.4", "mono", 0.012),
    IconSet("maki", "1.2.5", "mono", 0.005, "", r"-11$|-15$"),
    IconSet("temaki", "1.2.6", "mono", 0.006),
    IconSet("fluent-emoji-flat", "1.2.6", "heldout"),
    IconSet("fluent-emoji", "1.2.7", "heldout"),
    IconSet("fluent-emoji-high-contrast", "1.2.6", "heldout"),
    IconSet("fxemoji", "1.2.2", "heldout"),
)

LOGOS = re.compile(
    r"logo|brand|google|facebook|twitter|github|gitlab|apple-(?!pie|whole|core|seed|fill)|microsoft|windows|android|linux|"
    r"amazon|aws|paypal|youtube|instagram|whatsapp|telegram|linkedin|spotify|docker|firefox|chrome|safari|opera|adobe|"
    r"dropbox|slack|skype|reddit|tiktok|netflix|uber|visa|mastercard|bitcoin|ethereum|steam|xbox|playstation|nintendo|"
    r"^language-|openai|gitbook|kubernetes|ubuntu|debian|vuejs|react|angular|ibm|watson"
)

TEXT_PACKAGES = {"emojibase-data": "17.0.0", "emojilib": "4.0.3", "unicode-emoji-json": "0.9.0"}

# Fonts (@fontsource/<name>, all SIL Open Font License or Apache 2.0). The held-out ones appear in tasks only.
FONTS, HELDOUT_FONTS = (block.split() for block in Path(__file__).with_name("fonts.txt").read_text().split("\n\n"))
