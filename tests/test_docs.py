"""What the documents show is what happens."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from animaworks_tasks import Executor, InlineBackend, MemoryTaskStore, Registry, State
from animaworks_tasks.task.states import TRANSITIONS

ROOT = Path(__file__).resolve().parent.parent


def diagram() -> str:
    """Draw the table as a Mermaid state diagram."""
    edges: dict[tuple[State, State], list[str]] = {}
    for (source, event), (target, outcome) in TRANSITIONS.items():
        label = event.value if outcome is None else f"{event.value} ({outcome.value})"
        edges.setdefault((source, target), []).append(label)
    lines = [f"    {a.value} --> {b.value}: {', '.join(labels)}" for (a, b), labels in edges.items()]
    start = f"    [*] --> {State.PENDING.value}: submit"
    return "\n".join(["stateDiagram-v2", start, *lines, f"    {State.DONE.value} --> [*]: prune"])


def test_the_diagram_in_the_architecture_is_made_from_the_table() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- diagram -->\n```mermaid\n(.*?)\n```\n<!-- /diagram -->", text, re.DOTALL)
    assert shown is not None
    assert diagram() == shown[1]


def blotted(text: str) -> str:
    """Return *text* without ids and times."""
    return re.sub(r"\b[0-9a-f]{12}\b", "<id>", re.sub(r"\d+\.\d s", "<time> s", text))


def test_the_program_in_the_readme_prints_what_stands_there(tmp_path: Path) -> None:
    # given
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (shown,) = re.findall(r"```console\n\$ python film.py\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "film.py").write_text(program, encoding="utf-8")

    # when
    python = [sys.executable, "film.py"]
    done = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    # then
    assert (blotted(shown).rstrip(), "") == (blotted(done.stdout).rstrip(), done.stderr)
    assert len(readme.splitlines()) < 150


def test_the_directory_to_start_from_works_wherever_it_is_copied(tmp_path: Path) -> None:
    # given
    shutil.copytree(
        ROOT / "examples" / "starter", tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__", "state")
    )
    rows = re.findall(r"\| `(.*?)` \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    unnamed = {name: value for name, value in os.environ.items() if not name.startswith(("ANIMAWORKS", "PYTEST"))}
    environment = unnamed | {"PATH": path, "PYTHONPATH": "", "ANIMAWORKS_DATA_DIR": str(tmp_path / "data")}

    # when, then
    said = []
    for row in rows:
        done = subprocess.run(
            ["sh", "-c", row], cwd=tmp_path / "mine", env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert 0 == done.returncode, (row, done.stdout, done.stderr)
        said.append(done.stdout)
    directly, tested, hosted, shell = said
    assert {"words", "different"} == json.loads(directly).keys()
    assert "1 passed" in tested
    assert re.match(r"\d+ different words\n# Background task completed: words:count\n", hosted)
    assert re.search(r"words:count shell.sh completed in \d+\.\d s: ", shell)
    assert "# Background task completed: words:count" in shell


@pytest.mark.slow
@pytest.mark.parametrize("what", ["README.md", "docs/hosts.md", "docs/animaworks.md", "examples/tools"])
def test_what_is_to_be_copied_satisfies_a_strict_type_checker(what: str, tmp_path: Path) -> None:
    """The tools as a package, which is what their directory is."""
    # given
    path, options = ROOT / what, ["--explicit-package-bases"]
    if path.is_file():
        blocks = re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
        path, options = tmp_path / "program.py", []
        path.write_text("\n".join(blocks), encoding="utf-8")

    # when
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *options, path.name]
    done = subprocess.run(mypy, cwd=path.parent, capture_output=True, text=True, timeout=300, check=False)

    # then
    assert (0, "") == (done.returncode, done.stderr), done.stdout


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
    assert (8, "") == (len(blocks), done.stderr)
    assert "no tool: core.tools.broken: ZeroDivisionError: division by zero (broken.py, line 1)" in done.stdout
    assert re.search(r"^generate_3d_model runs in the background: [0-9a-f]{12}$", done.stdout, re.MULTILINE)
    assert "web_search has made three hits\n" in done.stdout
    assert "[generate_3d_model] completed: generate_3d_model has made a cat\n" in done.stdout
    # and each end is called back once, and shown to the model until it was not cut short
    assert 1 == done.stdout.count('\n[image_gen:3d] completed: {"model": "cat.glb"}\n')
    assert 2 == done.stdout.count('- 結果: [image_gen:3d] completed: {"model": "cat.glb"}\n')
    assert re.search(r"^timeout\n(?s:.*)^responded$", done.stdout, re.MULTILINE)
    assert "## Nothing new\n" not in done.stdout
    assert "- ツール: generate_3d_model\n" in done.stdout
    assert "animaworks-tool submit image_gen 3d ..." in done.stdout
    assert done.stdout.endswith("\n0 forgotten\n")


STANDS_FOR_ANIMAWORKS = {
    "config/models.py": """
def load_permissions(anima_dir):
    return (anima_dir / "permissions.json").read_text().split()
""",
    "tooling/permissions.py": "get_permitted_tools = set",
    "tools/__init__.py": "TOOL_MODULES = {'gmail': '', 'slack': ''}",
    "memory/action_gate.py": """
from types import SimpleNamespace
def action_tool_name_from_cli_argv(argv):
    return {("gmail", "send"): "gmail_send"}.get(tuple(argv))
def check_action(anima_dir, tool_name, args, *, session_key):
    allowed = "spam" not in args["argv"]
    return SimpleNamespace(allowed=allowed, to_json=lambda: f"{tool_name} {session_key} no_matching_rule")
""",
}


def test_the_permissions_and_the_gate_of_animaworks_plug_in_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given the recipe's functions, beside what stands for AnimaWorks' own
    pieces = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "animaworks.md").read_text("utf-8"), re.DOTALL)
    [recipe] = [piece for piece in pieces if "GATE_SESSION" in piece]
    for name, source in STANDS_FOR_ANIMAWORKS.items():
        path = tmp_path / "core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    program: dict[str, Any] = {}
    with mock.patch.dict(sys.modules):  # no other test is to meet this core
        for name in [name for name in sys.modules if name.split(".")[0] == "core"]:
            del sys.modules[name]
        exec(recipe, program)  # noqa: S102 - what the reader copies
    permits, veto = program["permissions_of"](tmp_path)
    store, registry = MemoryTaskStore(language="en"), Registry(permits=permits, veto=veto)
    registry.add("gmail", "send", lambda text: f"sent {text}", gated=True)
    registry.add("slack", "list", lambda: "listed")

    def run(*call: str) -> str:
        task_id = store.submit(*call).id
        executor.run_until_idle_sync()
        return store.get(task_id).error or store.get(task_id).result or ""

    # then
    executor = Executor(store, registry, backend=InlineBackend()).start()
    assert "its veto failed (FileNotFoundError" in run("slack", "list")
    (tmp_path / "permissions.json").write_text("gmail")
    assert "permissions.json does not allow slack" in run("slack", "list")
    assert "needs the permission gmail_send" in run("gmail", "send", "hello")
    (tmp_path / "permissions.json").write_text("gmail gmail_send")
    assert "sent hello" == run("gmail", "send", "hello")
    assert run("gmail", "send", "spam").endswith("gmail send: gmail_send background no_matching_rule")


@pytest.mark.slow
def test_the_guide_for_authors_of_tools_can_be_followed_step_by_step(tmp_path: Path) -> None:
    """Its files are written, its commands typed; what they print, and what the agent reads, is what it shows."""
    # given its files, commands and what these print, and at the end what it says of its tests
    blocks = re.findall(
        r"^(`{3,})(\w+)\n(.*?)^\1$", (ROOT / "docs" / "tools.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    steps = [step for _, kind, text in blocks for step in _steps(kind, text)]
    [shown_failure] = [text for _, kind, text in blocks if kind == "text"]
    test = "python -m pytest -q -p no:cacheprovider -p no:xdist test_letters.py"
    steps += [
        (f"{test} | tail -n 1", "4 passed in 0.1s"),
        ("python without_pytest.py", f'{"0" * 12} greet:card completed in 0.0 s: {{"card": "Happy birthday, Mei!"}}'),
        ("sed -i 's/assert_failed(task_store, task, .*)/assert_completed(task_store, task)/' test_letters.py", ""),
    ]
    to_fail = f"{test} | sed -n 's/^E       AssertionError: //p; s/^E       //p'"
    end = "--- that was it ---\n"
    script = "".join(f"{{ {command}\n}} 2>&1\necho {end}" for command in [*(command for command, _ in steps), to_fail])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANIMAWORKS", "PYTEST"))},
        "ANIMAWORKS_DATA_DIR": str(tmp_path / "data"),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    # when
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, stdout=-1, stderr=-2, text=True, timeout=100, check=False
    )

    # then
    said = [_anybodys(text, tmp_path) for text in done.stdout.split(end)]
    assert "" == said.pop()
    failure = said.pop()
    commands = [command for command, _ in steps]
    shown = [_anybodys(text, tmp_path) for _, text in steps]
    assert list(zip(commands, shown, strict=True)) == list(zip(commands, said, strict=True))
    # and the test that was made to fail says what is shown of it
    assert failure.startswith(_anybodys(shown_failure, tmp_path).removesuffix("...\n").rstrip(" "))


def _steps(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield what a reader does with a block: write the file that its first line names, or type its commands."""
    if kind == "console":
        for command, shown in re.findall(r"^\$ (.*\n)((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            yield command.strip(), shown
    elif name := re.match(r"# (\S+\.(?:py|sh))\n", text):
        yield f"cat > {name[1]} <<'THE END OF IT'\n{text}THE END OF IT", ""


def _anybodys(text: str, home: Path) -> str:
    """Return what was printed without what differs from run to run: where, when, with which ids, in what time."""
    text = re.sub(r"\S*/pytest-of-[^/]+/[^/]+/[^/]+", "/home/you", text.replace(str(home), "/home/you"))
    text = re.sub(r"\b[0-9a-f]{12}\b", "3f9c1a7be204", text)
    text = re.sub(r"(Took: |passed in )[0-9.]+", r"\g<1>0.1", text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def test_every_place_that_the_recipe_names_is_told_of_in_a_section() -> None:
    text = (ROOT / "docs" / "animaworks.md").read_text("utf-8")
    links = set(re.findall(r"\(#([a-z-]+)\)", text))
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert links == sections


def test_the_version_stands_once() -> None:
    from animaworks_tasks import __version__

    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_public_name_has_its_place_in_the_reference() -> None:
    """A strict build finds a name that is not there any more, and none that was forgotten."""
    import animaworks_tasks
    from animaworks_tasks import errors

    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: animaworks_tasks\.(\w+)$", pages, re.MULTILINE))
    named = {name for name in animaworks_tasks.__all__ if not hasattr(errors, name)} - {"__version__"}
    assert named | {"background", "errors", "testing"} == {name for name in shown if not name.startswith("_")}


def test_what_a_store_of_ones_own_takes_and_hands_out_is_public() -> None:
    """Every class of ours that stands in an annotation of what a store's author writes."""
    import animaworks_tasks
    from animaworks_tasks import Notifications, Store, Watch, Workspace

    named = set()
    for protocol in (Store, Notifications, Watch, Workspace):
        module = vars(sys.modules[protocol.__module__])
        for _, method in inspect.getmembers(protocol, inspect.isfunction):
            for annotation in method.__annotations__.values():
                words = re.findall(r"\w+", str(annotation))
                named |= {word for word in words if "animaworks" in str(getattr(module.get(word), "__module__", ""))}
    assert {"Claim", "Recovery", "Drained"} <= named
    assert named <= set(animaworks_tasks.__all__)
