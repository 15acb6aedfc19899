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


IMAGE_GEN = """
import argparse, json
EXECUTION_PROFILE = {"3d": {"expected_seconds": 600, "background_eligible": True}}
def cli_main(argv=None):
    parser = argparse.ArgumentParser()
    sub = parser.add_subparsers(dest="command")
    model = sub.add_parser("3d")
    model.add_argument("image")
    model.add_argument("-j", "--json", action="store_true")
    args = parser.parse_args(argv)
    print(json.dumps({"model": "cat.glb"}) if args.json else "cat.glb")
"""


def test_the_runtime_that_the_recipe_for_animaworks_makes_runs(tmp_path: Path) -> None:
    """Its pieces are one program; here it has a core with a tool, and an Anima."""
    # given
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "animaworks.md").read_text("utf-8"), re.DOTALL)
    core = tmp_path / "core" / "tools"
    core.mkdir(parents=True)
    for path, source in ((core / "image_gen.py", IMAGE_GEN), (core / "broken.py", "1 / 0"), (core / "__init__.py", "")):
        path.write_text(source)
    (core.parent / "__init__.py").touch()
    anima = tmp_path / "animas" / "mei"
    last = f"""
if __name__ == "__main__":
    asyncio.run(main(Path({str(anima)!r}), tools(Path({str(anima)!r}), set())))
"""
    (tmp_path / "runtime.py").write_text("\n".join([*blocks, last]), encoding="utf-8")

    # when
    done = subprocess.run(
        [sys.executable, "runtime.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    # then
    assert (7, "") == (len(blocks), done.stderr)
    assert "no tool: core.tools.broken: tool 'core.tools.broken' does not load: ZeroDivisionError" in done.stdout
    assert re.search(r"^generate_3d_model runs in the background: [0-9a-f]{12}$", done.stdout, re.MULTILINE)
    assert "web_search has made three hits\n" in done.stdout
    assert "[generate_3d_model] completed: generate_3d_model has made a cat\n" in done.stdout
    assert '- 結果: [image_gen:3d] completed: {"model": "cat.glb"}\n' in done.stdout
    assert "- ツール: generate_3d_model\n" in done.stdout
    assert "animaworks-tool submit image_gen 3d ..." in done.stdout
    assert done.stdout.endswith("\n0 forgotten\n")


def test_every_place_that_the_recipe_names_is_told_of_in_a_section() -> None:
    text = (ROOT / "docs" / "animaworks.md").read_text("utf-8")
    links = set(re.findall(r"\(#([a-z-]+)\)", text))
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert links == sections


def test_the_version_stands_once() -> None:
    from animaworks_tasks import __version__

    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
