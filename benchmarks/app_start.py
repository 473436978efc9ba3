"""First paint: ``wmdd-tui --version`` and the opened dashboard against a bare Textual app, on one pseudo-terminal.

The runs alternate, so a busy machine slows all of them alike. First paint is the moment the program's own text stands
on the screen. Budget: at most 0.3 s beyond the bare app, and torch not imported.

    python benchmarks/app_start.py [-n 9]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from figures import report, spread
from pty_session import PtySession, dashboard

BUDGET_SECONDS = 0.3
PATIENCE = 60.0
BARE = """
from textual.app import App
from textual.widgets import Footer, Static
class Bare(App):
    def compose(self):
        yield Static("a bare app")
        yield Footer()
Bare().run()
"""


def first_paint(command: list[str], text: str, env: dict[str, str]) -> float:
    """Seconds until a text stands on the screen."""
    with PtySession(command, 160, 48, env) as session:
        return session.wait_for(text, PATIENCE)


def version_seconds() -> float:
    """Seconds ``wmdd-tui --version`` takes."""
    begin = time.monotonic()
    subprocess.run(dashboard("--version"), check=True, capture_output=True)
    return time.monotonic() - begin


def torch_imported(env: dict[str, str]) -> bool:
    """Whether the opened dashboard has torch among its modules: the app says so itself when it is left."""
    code = (
        "import sys\nfrom wmdd_tui.app import run_app\nrun_app()\n"
        "print('heavy:', sorted({'torch', 'torchvision', 'sklearn', 'ot'} & set(sys.modules)))"
    )
    with PtySession([sys.executable, "-c", code], 80, 24, env) as session:
        session.wait_for("No runs yet", PATIENCE)
        session.press("q")
        session.wait_exit(PATIENCE)
        return "heavy: []" not in session.text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=9, help="starts of each program")
    count = parser.parse_args().n
    load = os.getloadavg()[0]
    bare, app, versions, differences = [], [], [], []
    with tempfile.TemporaryDirectory() as home:
        env = {"WMDD_HOME": home}
        for turn in range(count + 1):
            one = first_paint([sys.executable, "-c", BARE], "a bare app", env)
            two = first_paint(dashboard(), "No runs yet", env)
            three = version_seconds()
            if turn:  # the first turn fills caches
                bare.append(one)
                app.append(two)
                versions.append(three)
                differences.append(two - one)
        heavy = torch_imported(env)
    extra = spread(differences)
    report(
        "app_start", load, bare_s=spread(bare), app_s=spread(app), beyond_bare_s=extra, version_s=spread(versions),
        torch_imported=heavy, budget_s=BUDGET_SECONDS, within=extra["median"] <= BUDGET_SECONDS and not heavy,
    )  # fmt: skip


if __name__ == "__main__":
    main()
