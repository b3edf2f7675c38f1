"""Makes `figures.ttf`, the glyphs that figures are measured with and that PNG files are drawn with.

It is a subset of DejaVu Sans 2.37 as shipped in the wheel of matplotlib: without hints, kerning and ligatures, and under
another name, as `LICENSE` asks of changed fonts. With the versions below the bytes are the same on every machine.

    pip install fonttools==4.68.0 matplotlib==3.11.2
    python make_font.py
"""

from pathlib import Path

import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont

NAME = "Digrap Figures"

RANGES = [
    (0x0020, 0x007E),  # Basic Latin
    (0x00A0, 0x017F),  # Latin-1, Latin Extended-A
    (0x0391, 0x03C9),  # Greek
    (0x2010, 0x2022),  # dashes, double bar, quotes, bullet
    (0x2026, 0x2026),  # ellipsis
    (0x2070, 0x209C),  # superscripts and subscripts
    (0x2190, 0x2199),  # arrows
    (0x2206, 0x2206),  # increment
    (0x2211, 0x2212),  # sum, minus
    (0x221A, 0x221E),  # root, proportional, infinity
    (0x2248, 0x2248),  # almost equal
    (0x2260, 0x2265),  # not equal, at most, at least
]


def made() -> TTFont:
    source = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = TTFont(source, recalcTimestamp=False)
    options = subset.Options(
        hinting=False, layout_features=[], notdef_outline=True, glyph_names=False, name_IDs=[0, 1, 2, 4, 6]
    )
    options.drop_tables += ["FFTM", "GDEF", "GPOS", "GSUB", "MATH", "kern"]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in RANGES for code in range(first, last + 1)])
    subsetter.subset(font)
    for name, text in {1: NAME, 2: "Regular", 4: NAME, 6: NAME.replace(" ", "")}.items():
        font["name"].setName(text, name, 3, 1, 0x409)
        font["name"].setName(text, name, 1, 0, 0)
    return font


if __name__ == "__main__":
    made().save(Path(__file__).with_name("figures.ttf"))
