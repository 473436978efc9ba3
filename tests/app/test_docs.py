"""Generated documentation is what its generator says; pages lead where they say; pictures show no machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PICTURES = sorted((DOCS / "screens").glob("*.svg"))
LINK = re.compile(r"""\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)\"""")
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|tmp|usr|var|work|Users)\b")


@pytest.mark.parametrize(
    ("page", "generator"), [("keys.md", "wmdd_tui.actions"), ("commands.md", "wmdd_tui.cli.reference")]
)
def test_a_generated_page_is_current(page: str, generator: str) -> None:
    done = subprocess.run([sys.executable, "-m", generator], capture_output=True, text=True, check=True)
    stored = (DOCS / page).read_text(encoding="utf-8")
    assert done.stdout == stored, f"run: python -m {generator} > docs/{page}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for found in LINK.findall(page.read_text(encoding="utf-8")):
        target = found[0] or found[1]
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} leads to {target}"
        assert not heading or heading in headings(file), f"{page.name} leads to {target}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def test_every_screen_is_pictured_in_both_themes_and_every_picture_is_shown() -> None:
    told = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = {file.stem for file in PICTURES}
    for screen in ("runs", "new-run", "monitor", "compare", "help", "palette"):
        assert {f"{screen}-dark", f"{screen}-light"} <= names
    assert {name for name in names if f"screens/{name}.svg" not in told} == set()


def test_pictures_show_no_path_of_a_machine() -> None:
    for picture in PICTURES:
        drawn = re.sub(r"<[^>]+>", " ", picture.read_text(encoding="utf-8").partition("</defs>")[2])
        assert "esc" in drawn.lower(), f"the text of {picture.name} was not found"
        assert not MACHINE_PATH.search(drawn), picture.name
