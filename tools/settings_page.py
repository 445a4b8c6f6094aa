"""Make the page ``docs/reference/settings.md`` from ``config.example.toml``.

``python tools/settings_page.py`` writes it. A test fails while the page differs from what this makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from alfwatchd.service.in_force import NEEDS_RESTART

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "config.example.toml"
PAGE = ROOT / "docs/reference/settings.md"
_ENTRY = "publish"
_WITHOUT_DEFAULT = ("root", "target")
_HEAD = """\
# Settings

<!-- Made from config.example.toml by `python tools/settings_page.py`: change that file, then run it. -->

A setting comes from a flag (`--out-dir`), else from the environment (`ALFWATCHD_OUT_DIR`), else from the TOML file that
`--config` or `ALFWATCHD_CONFIG` names, else it has its default. An environment variable is `ALFWATCHD_` and the key in
capitals, with two underscores between section and key: `prune.enabled` is `ALFWATCHD_PRUNE__ENABLED`. An empty variable
counts as not set. An unknown key is an error, which names the nearest known one.

`alfwatchd config` prints the settings in force and where each came from. Paths in the file are relative to its folder;
`~` is the home folder. "Restart" says that a change takes effect only when the daemon starts again; all other keys take
effect at a [reload](../guide/operate.md#reload). `alfwatchd serve` reads `[serve]` when it starts.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the example file: its section (empty for none), name, default as TOML, and what it means."""

    section: str
    name: str
    default: str
    meaning: str


def read_example(text: str) -> Iterator[Setting]:
    """Yield the keys of the example file, in its order."""
    section, meaning = "", list[str]()
    for line in text.splitlines():
        if line.strip() in ("", "#"):
            meaning = []
        elif found := re.fullmatch(r"(?:# )?\[+(\w+)\]+", line):
            section, meaning = found[1], []
        elif found := re.fullmatch(r"(?:#|# )?(\w+) = (.*)", line):
            yield Setting(section, found[1], "" if found[1] in _WITHOUT_DEFAULT else found[2], " ".join(meaning))
            meaning = []
        else:
            meaning.append(re.sub(r"^(# )+", "", line))


def make_page(settings: Collection[Setting], needs_restart: Collection[str]) -> str:
    """Return the page: one table for each section."""
    lines = [_HEAD]
    for section in dict.fromkeys(setting.section for setting in settings):
        if section:
            lines += [f"## `[[{section}]]`, one for each target\n" if section == _ENTRY else f"## `[{section}]`\n"]
        else:
            lines += ["## Without a section\n"]
        lines += ["| key | default | restart | meaning |", "|---|---|---|---|"]
        for setting in settings:
            if setting.section == section:
                restart = "yes" if {section or setting.name} & set(needs_restart) else ""
                default = f"`{setting.default}`" if setting.default and "Default:" not in setting.meaning else ""
                lines.append(f"| `{setting.name}` | {default} | {restart} | {_cell(setting.meaning)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def make() -> str:
    """Return the page for the example file and the program as they are."""
    return make_page(list(read_example(EXAMPLE.read_text())), NEEDS_RESTART)


if __name__ == "__main__":
    PAGE.write_text(make())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: written\n")
