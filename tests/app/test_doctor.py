"""``wmdd-tui doctor``: what it finds, and what it says is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wmdd_tui.cli.commands import app
from wmdd_tui.store import health

ENGINE: dict[str, Any] = {
    "versions": {"torch": "2.15.0", "torchvision": "0.29.2"}, "cuda": True, "cuda_build": "13.2", "threads": 2,
    "devices": [{"name": "NVIDIA H100", "memory": 80 << 30}], "bf16": True, "compiling": "",
}  # fmt: skip
WELL: dict[str, Any] = {
    "python": "3.11.7", "platform": "Linux", "home": "/home/me/runs", "home_writable": True, "disk_free": 1 << 40,
    "memory": {"available": 6 << 30, "total": 8 << 30}, "data": "", "terminal": "120x40", "is_tty": True,
    "colour": "truecolor", "encoding": "utf-8", "timm": True, "driver_gpus": ["NVIDIA H100"], "engine": ENGINE,
}  # fmt: skip
NO_GPU = {**ENGINE, "cuda": False, "devices": []}


def found(**changes: Any) -> dict[str, health.Finding]:
    return {one.name: one for one in health.findings({**WELL, **changes})}


def test_a_machine_that_has_everything(tmp_path: Path) -> None:
    assert {one.state for one in found(data=str(tmp_path)).values()} == {"ok"}
    assert found()["GPU 0"].value == "NVIDIA H100, 80.0 GiB: run.device = 'cuda:0'"


@pytest.mark.parametrize(
    ("name", "changes", "state", "says"),
    [
        ("engine", {"engine": {"problem": "no module torch"}}, "problem", "no module torch"),
        ("GPU", {"engine": NO_GPU}, "problem", "the driver sees 1 (NVIDIA H100), PyTorch none"),
        ("GPU", {"engine": NO_GPU, "driver_gpus": []}, "note", "none"),
        ("precision", {"engine": {**ENGINE, "bf16": False}}, "ok", "fp32"),
        ("compiler", {"engine": {**ENGINE, "compiling": "Triton is not installed"}}, "note", "Triton"),
        ("runs", {"home_writable": False}, "problem", "/home/me/runs cannot be written"),
        ("runs", {"disk_free": 1 << 20}, "note", "1.0 MiB free"),
        ("data", {}, "note", "WMDD_DATA is not set"),
        ("data", {"data": "/no/such/folder"}, "problem", "/no/such/folder is no folder"),
        ("terminal", {"is_tty": False}, "note", "none"),
        ("terminal", {"terminal": "79x24"}, "note", "79x24"),
        ("terminal", {"encoding": "ascii"}, "note", "ascii"),
        ("timm", {"timm": False}, "note", "not installed"),
    ],
)
def test_what_is_amiss_is_said_with_a_remedy(name: str, changes: dict[str, Any], state: str, says: str) -> None:
    finding = found(**changes)[name]
    assert finding.state == state
    assert says in finding.value
    assert bool(finding.remedy) is (state != "ok")


def test_a_mask_that_hides_the_cards_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES is '7'" in found(engine=NO_GPU)["GPU"].remedy


def test_a_folder_that_only_looks_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_HOME", "/proc/nothing")
    monkeypatch.setattr(health, "ask_engine", lambda _question: ENGINE)
    assert {one.name: one.state for one in health.findings(health.gather())}["runs"] == "problem"


def test_the_command(wmdd_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true engine, to people and to programs; a problem is exit code 1."""
    monkeypatch.delenv("WMDD_DATA", raising=False)
    asked = CliRunner().invoke(app, ["doctor", "--json"])
    facts = json.loads(asked.stdout.splitlines()[-1])
    assert facts["engine"]["versions"]["torch"]
    states = {one["name"]: one["state"] for one in facts["findings"]}
    assert states["PyTorch"] == states["runs"] == "ok"
    assert asked.exit_code == int("problem" in states.values())
    monkeypatch.setattr(health, "gather", lambda: {**WELL, "home_writable": False})
    told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 1
    assert "problem  runs" in told.stdout
    assert "set WMDD_HOME to a folder of yours" in told.stdout
    assert wmdd_home
