"""A package of tools: installing it is enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "animaworks-tools-sound"


class Installed:
    """
    An environment of its own, as a user has it after ``pip install animaworks_tasks animaworks-tools-sound``.

    What both need from others (attrs, filelock ...) is taken from where our tests run: there need be no network.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        venv.create(directory / "venv", with_pip=False)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(directory / "venv")}))
        ours = sysconfig.get_path("purelib")
        (site / "others.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        self.python = str(directory / "venv" / "bin" / "python")
        self._environment = {
            # Not ours: where coverage is measured, it is of the source, and not of what is installed from it.
            **{name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "PYTHON"))},
            "ANIMAWORKS_ANIMA_DIR": str(directory / "anima"),
            "ANIMAWORKS_DATA_DIR": str(directory / "data"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        (directory / "anima").mkdir()
        pip = (sys.executable, "-m", "pip", "--python", self.python)
        local = ("--no-index", "--no-build-isolation", "--no-warn-script-location", "--quiet")
        self.run(*pip, "install", *local, str(ROOT), str(PACKAGE))

    def run(self, *words: str) -> str:
        """Run a program there and return what it printed."""
        done = subprocess.run(
            words, env=self._environment, cwd=self._directory, capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def tool(self, *words: str) -> str:
        """Type ``animaworks-tool ...``: the one that was installed."""
        return self.run(str(Path(self.python).with_name("animaworks-tool")), *words)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.slow
def test_an_installed_tool_is_listed_and_in_the_guide(installed: Installed) -> None:
    listed = json.loads(installed.tool("tools", "-j"))
    assert ["sound"] == list(listed["tools"])
    assert [] == listed["problems"]
    assert "sound normalize RECORDING [--peak NUMBER] [--to PATH]  1 min" in installed.tool("tools")
    guide = installed.tool("guide", "--language", "en")
    assert "animaworks-tool submit sound normalize RECORDING" in guide
    assert "sound measure RECORDING" in guide


@pytest.mark.slow
def test_an_installed_tool_is_submitted_run_and_told_of(installed: Installed) -> None:
    """No option names the tool, no file was copied: the host finds it, in its own process and in that of its tools."""
    # given
    recording = str(ROOT / "examples" / "hello.wav")
    receipt = json.loads(installed.tool("submit", "sound", "normalize", recording, "--to", "hello.wav"))
    # when
    installed.tool("run", "--until-idle", "--language", "en")
    # then
    notification = installed.tool("notifications")
    assert f"- Task ID: {receipt['task_id']}" in notification
    assert "- Result: [sound:normalize] completed:" in notification
    assert "-1.0" in installed.tool("sound", "measure", "hello.wav")


@pytest.mark.slow
def test_the_package_is_tested_with_the_fixtures_that_come_with_ours(installed: Installed) -> None:
    # A cache would be left in the source.
    told = installed.run(installed.python, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(PACKAGE))
    assert "7 passed" in told
    where = installed.run(installed.python, "-c", "import animaworks_tasks.testing as ours; print(ours.__file__)")
    assert Path(where).is_relative_to(Path(installed.python).parents[1])
