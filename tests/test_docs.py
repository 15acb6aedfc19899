"""What the documents show is what happens."""

import re
import subprocess
import sys
from pathlib import Path

from animaworks_tasks._states import diagram

ROOT = Path(__file__).resolve().parent.parent


def test_the_diagram_in_the_architecture_is_made_from_the_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- diagram -->\n```mermaid\n(.*?)\n```\n<!-- /diagram -->", text, re.DOTALL)
    assert shown is not None
    assert diagram() == shown[1]


def test_the_programs_in_the_readme_run_as_they_stand(tmp_path: Path) -> None:
    """The tool, its test, and the host that runs it, in one script as a reader would put them together."""
    # given the three programs, and two lines that run them
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "readme.py"
    last = (
        'if __name__ == "__main__":\n'
        "    test_a_missing_file_is_the_callers_fault()\n"
        f"    asyncio.run(main({str(tmp_path / 'anima')!r}, registry))\n"
    )
    script.write_text("\n".join([*blocks, last]), encoding="utf-8")

    # when
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)

    # then
    assert (3, "") == (len(blocks), done.stderr)
    assert re.match(r"[0-9a-f]{12} words:count completed in ", done.stdout)
    assert "- Status: completed" in done.stdout


def test_the_version_stands_once() -> None:
    from animaworks_tasks import __version__

    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
