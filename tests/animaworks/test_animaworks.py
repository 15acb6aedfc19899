"""AnimaWorks' tools as they are: modules on disk, unedited, submitted from a shell and run by a host in processes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from animaworks_tasks import (
    Cause,
    Executor,
    InlineBackend,
    MemoryTaskStore,
    Outcome,
    ProcessBackend,
    Registry,
    TaskStore,
    ThreadBackend,
)
from animaworks_tasks.cli import main
from animaworks_tasks.errors import NotPermittedError, ToolLoadError
from animaworks_tasks.tools.discovery import discover, load_import_path
from animaworks_tasks.worker.json_option import json_asked_for
from tests.processes import PATIENCE, in_event_loop

# Of the shape that AnimaWorks' modules have: a profile, argparse with subcommands, -j where the author thought of it.
IMAGE_GEN = '''
"""Makes pictures."""
from __future__ import annotations
import argparse, json, os, sys
from pathlib import Path

with Path(__file__).with_suffix(".imported").open("a") as imported:
    imported.write(f"{os.getpid()}\\n")

EXECUTION_PROFILE: dict[str, dict[str, object]] = {
    "3d": {"expected_seconds": 600, "background_eligible": True},
    "icon": {"expected_seconds": 120, "background_eligible": True},
}


def cli_main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Character image & 3D model generation")
    sub = parser.add_subparsers(dest="command", required=True)
    p_3d = sub.add_parser("3d", help="Generate 3D model")
    p_3d.add_argument("image", help="Input image")
    p_3d.add_argument("-o", "--output", default="model.glb")
    p_3d.add_argument("-j", "--json", action="store_true")
    p_icon = sub.add_parser("icon")
    p_icon.add_argument("image")
    args = parser.parse_args(argv)
    if not args.image.endswith(".png"):
        print(f"Error: {args.image} is no image", file=sys.stderr)
        sys.exit(1)
    print(f"reading {args.image}", file=sys.stderr)
    told = {"model": args.output if args.command == "3d" else "icon.png", "anima": os.environ["ANIMAWORKS_ANIMA_DIR"]}
    if getattr(args, "json", False):
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        print(f"{args.command}: 画像 {told['model']}")


if __name__ == "__main__":
    cli_main()
'''

LOCAL_LLM = """
import argparse, sys
EXECUTION_PROFILE = {
    "generate": {"expected_seconds": 300, "background_eligible": True},
    "list": {"expected_seconds": 5, "background_eligible": False},
}
def cli_main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", "--model", default="any")
    sub = parser.add_subparsers(dest="command")
    p_gen = sub.add_parser("generate")
    p_gen.add_argument("prompt", nargs="*")
    p_gen.add_argument("-S", "--system", default="")
    sub.add_parser("list")
    args = parser.parse_args(argv)
    print(args.model, args.command, *getattr(args, "prompt", []))
"""

TRANSCRIBE = """
import argparse, json
EXECUTION_PROFILE = {"audio": {"expected_seconds": 120, "background_eligible": True}}
def cli_main(argv=None):
    parser = argparse.ArgumentParser()
    sub = parser.add_subparsers(dest="command")
    audio = sub.add_parser("audio")
    audio.add_argument("audio_path")
    audio.add_argument("-o", "--output", default="text", choices=["text", "json"])
    audio.add_argument("-j", "--json", action="store_const", const="json", dest="output")
    args = parser.parse_args(argv)
    text = f"{args.audio_path} を聞いた"
    print(json.dumps({"text": text}, ensure_ascii=False) if args.output == "json" else text)
"""

MACHINE = """
import sys
EXECUTION_PROFILE = {
    "run": {"expected_seconds": 600, "background_eligible": True, "gated": True},
    "info": {"expected_seconds": 5, "background_eligible": False},
}
def cli_main(argv=None):
    print("ran", *argv)
"""

BY_HAND = "import runpy, sys; module = runpy.run_path(sys.argv[1]); module['cli_main'](sys.argv[2:])"


def put(directory: Path, **sources: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        (directory / f"{name}.py").write_text(source, "utf-8")
    return directory


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AnimaWorks' data directory, with its common tools."""
    put(tmp_path / "common_tools", image_gen=IMAGE_GEN, local_llm=LOCAL_LLM, transcribe=TRANSCRIBE)
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def anima(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an Anima, whose shell is ours."""
    directory = data_dir / "animas" / "mei"
    directory.mkdir(parents=True)
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(directory))
    return directory


@pytest.fixture
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "modules", sys.modules.copy())


def submit(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()  # whatever was said before
    assert 0 == main(["submit", *words])
    receipt: dict[str, str] = json.loads(capsys.readouterr().out)
    return receipt["task_id"]


def by_hand(data_dir: Path, tool: str, *argv: str) -> str:
    command = [sys.executable, "-c", BY_HAND, str(data_dir / "common_tools" / f"{tool}.py"), *argv]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


CALLS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "one that takes -j": (["image_gen", "3d", "猫.png", "-o", "猫.glb"], ["-j"]),
    "one that is asked for JSON already": (["image_gen", "3d", "a.png", "--json"], []),
    "one without -j": (["image_gen", "icon", "a.png"], []),
    "one with another meaning of options": (["local_llm", "-m", "llama3", "generate", "hello", "--", "-j"], []),
    "one that is not long-running": (["local_llm", "list"], []),
    "one whose -j is short for another option": (["transcribe", "audio", "talk.wav"], ["-j"]),
    "one that is asked for text": (["transcribe", "audio", "talk.wav", "-o", "text"], []),
}


def test_what_is_submitted_ends_with_the_result_that_it_has_by_hand(
    data_dir: Path, anima: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each subcommand is asked for JSON if it takes -j, as one asks for it by hand; the others are not."""
    # given a shell that has submitted all kinds
    submitted = {kind: submit(capsys, *words) for kind, (words, _) in CALLS.items()}
    failing = submit(capsys, "image_gen", "3d", "talk.wav")
    # when a host runs them, in processes
    registry = discover(anima)
    store = TaskStore(anima, language="en", durability="process")
    with contextlib.closing(_Host(store, registry, ProcessBackend())):
        pass
    # then
    for kind, (words, json_option) in CALLS.items():
        task = store.get(submitted[kind])
        assert (kind, by_hand(data_dir, words[0], *words[1:], *json_option)) == (kind, task.result)
    task = store.get(failing)
    assert (Outcome.FAILED, Cause.TOOL, "Error: talk.wav is no image") == (task.outcome, task.cause, task.error)
    # and AnimaWorks' readers see each as they expect it
    root = anima / "state" / "background_tasks"
    views = {path.stem: json.loads(path.read_text("utf-8")) for path in root.glob("*.json")}
    assert {*submitted.values(), failing} == views.keys()
    view = views[submitted["one that takes -j"]]
    assert ("image_gen:3d", "completed", str(anima)) == (
        view["tool_name"], view["status"], json.loads(view["result"])["anima"],
    )  # fmt: skip


class _Host:
    """A host without an event loop, which leaves when nothing is left to do."""

    def __init__(self, store: TaskStore, registry: Registry, backend: ProcessBackend | ThreadBackend) -> None:
        self.executor = Executor(store, registry, backend=backend, max_workers=2).start()

    def close(self) -> None:
        try:
            self.executor.run_until_idle_sync(timeout=PATIENCE)
        finally:
            self.executor.stop()


def test_a_direct_call_is_made_as_typed(anima: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A direct call prints JSON only on request."""
    assert 0 == main(["image_gen", "3d", "a.png"])
    assert "3d: 画像 model.glb\n" == capfd.readouterr().out
    assert str(anima) == os.environ["ANIMAWORKS_ANIMA_DIR"]


def test_a_module_with_a_literal_profile_is_imported_only_where_it_is_called(
    data_dir: Path, anima: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by the host, and never by a submit, which reads the host's catalogue."""
    # given a host that has run one
    registry, store = discover(anima), TaskStore(anima, durability="process")
    submit(capsys, "image_gen", "icon", "a.png")
    with contextlib.closing(_Host(store, registry, ProcessBackend())):
        pass
    # when
    assert registry.is_long_running("image_gen:3d")
    submit(capsys, "image_gen", "3d", "a.png")
    assert 2 == main(["submit", "image_gen", "3e", "a.png"])  # it was checked
    # then
    imported = (data_dir / "common_tools" / "image_gen.imported").read_text().split()
    assert 1 == len(imported)
    assert str(os.getpid()) not in imported


# The view that AnimaWorks' readers have: the rules of section 10, at every step of a task.


def _as_animaworks_reads(root: Path) -> dict[str, dict[str, Any]]:
    """Read as its web API does: every ``*.json`` in the directory is a task; what it expects of one is there."""
    found = {}
    for path in root.glob("*.json"):
        task = json.loads(path.read_text(encoding="utf-8"))
        assert {"task_id", "anima_name", "tool_name", "status", "created_at", "completed_at", "result", "error"} <= (
            task.keys()
        )
        assert {"subcommand", "raw_args", "anima_dir"} == task["tool_args"].keys()
        assert task["status"] in {"pending", "running", "completed", "failed"}
        assert path.stem == task["task_id"]
        found[path.stem] = task
    return found


def test_animaworks_readers_see_a_task_from_its_claim_to_its_end(files: TaskStore) -> None:
    # given
    root = Path(files.layout.root)
    registry = Registry()
    seen: list[str] = []

    @registry.tool("look", "around")
    def look() -> str:
        seen.extend(task["status"] for task in _as_animaworks_reads(root).values())
        return "seen"

    task_id = files.submit("look", "around").id
    cancelled = files.submit("look", "around").id
    assert {} == _as_animaworks_reads(root)  # it looks in pending/ itself
    # when
    files.request_cancel(cancelled)
    executor = Executor(files, registry, backend=InlineBackend()).start()
    executor.run_until_idle_sync()
    executor.stop()
    # then
    views = _as_animaworks_reads(root)
    assert ["failed", "running"] == sorted(seen)
    assert {task_id: "completed", cancelled: "failed"} == {each: view["status"] for each, view in views.items()}
    assert ("cancelled", "seen") == (views[cancelled]["outcome"], views[task_id]["result"])
    # and it is a file of its own: what others write there reaches no record
    assert not os.path.samefile(root / f"{task_id}.json", root / "done" / f"{task_id}.task")


def _as_their_command_lists(root: Path) -> list[tuple[str, str]]:
    """Do as ``animaworks-tool internal list-background-tasks``: each task that it prints, and where it found it."""
    found: list[tuple[str, str]] = []
    for place in ("pending", "done", "."):
        paths = sorted((root / place).glob("*.json"))
        found += [(json.loads(path.read_text(encoding="utf-8"))["task_id"], place) for path in paths]
    return found


def test_their_command_lists_each_task_once_wherever_it_stands(files: TaskStore) -> None:
    # given one that looks while it runs, and one that was cancelled
    root = Path(files.layout.root)
    registry = Registry()
    while_it_runs: list[tuple[str, str]] = []
    registry.add("look", "around", lambda: while_it_runs.extend(_as_their_command_lists(root)))
    looking, cancelled = (files.submit("look", "around").id for _ in range(2))
    files.request_cancel(cancelled)
    # when
    executor = Executor(files, registry, backend=InlineBackend()).start()
    executor.run_until_idle_sync()
    executor.stop()
    # then
    ended = sorted([(looking, "."), (cancelled, ".")])
    assert ended == sorted(while_it_runs) == sorted(_as_their_command_lists(root))
    # and one that waits is listed where it waits, also if it has run before
    waiting = files.submit("look", "around").id
    claim = files.claim(waiting)
    assert claim is not None
    files.publish_view(claim)
    assert [(waiting, ".")] == [each for each in _as_their_command_lists(root) if each not in ended]
    files.requeue(claim)
    assert [(waiting, "pending")] == [each for each in _as_their_command_lists(root) if each not in ended]


# Where tools come from.


def keys(registry: Registry) -> list[str]:
    return [tool.key for tool in registry.tools()]


def profiled(*subcommands: str) -> str:
    profile = {each: {"expected_seconds": 60, "background_eligible": True} for each in subcommands}
    return f"EXECUTION_PROFILE = {profile!r}\ndef cli_main(argv=None): ...\n"


@pytest.mark.usefixtures("_own_modules")
def test_core_tools_win_over_personal_ones_and_those_over_common_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given the same names everywhere, helpers, packages that tools share, and broken ones
    core = put(tmp_path / "site" / "acme" / "tools", __init__="", _base="1 / 0", a=profiled("core"), bad="1 / 0")
    put(tmp_path / "site" / "acme", __init__="")
    put(core / "image", __init__="raise SystemExit('nobody is to import this to look for tools')")
    put(tmp_path / "mei" / "tools", a=profiled("personal"), b=profiled("personal"), worse="def")
    put(tmp_path / "data" / "common_tools", a=profiled("common"), b=profiled("common"), c=profiled("common"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    # when
    registry = discover(tmp_path / "mei", tmp_path / "data", core="acme.tools")
    # then
    assert ["a:core", "b:personal", "c:common"] == keys(registry)
    assert [("acme.tools.bad", "ZeroDivisionError"), (str(tmp_path / "mei/tools/worse.py"), "SyntaxError")] == [
        (where, why.split(": ")[0]) for where, why in registry.problems
    ]
    # and a core that is not there is no tool's fault
    with pytest.raises(ToolLoadError, match="acme\\.nowhere"):
        discover(tmp_path / "mei", core="acme.nowhere")


FACADE = """
print("imported")
from acme.parts.clients import (
    PROFILE as EXECUTION_PROFILE,
    cli_main,
)
"""
CLIENTS = "print('imported')\nPROFILE = {'3d': {'expected_seconds': 600, 'background_eligible': True}}\n"


@pytest.mark.usefixtures("_own_modules")
@pytest.mark.parametrize(
    ("source", "imported"),
    [
        (FACADE, 0),
        (FACADE.replace("acme.parts.clients", "acme.parts"), 0),
        (FACADE.replace("acme.parts.clients", "acme.parts.many"), 2),
        (FACADE.replace("PROFILE as EXECUTION_PROFILE", "COMPUTED as EXECUTION_PROFILE"), 2),
        (FACADE.replace("PROFILE as EXECUTION_PROFILE", "LOCAL as EXECUTION_PROFILE"), 2),
        (FACADE.replace("acme.parts.clients", ".parts.clients"), 0),
        (FACADE.replace("acme.parts.clients", ".parts"), 0),
        ("print('imported')\nfrom acme.parts.clients import *\nEXECUTION_PROFILE = PROFILE", 2),
    ],
)
def test_the_profile_of_a_facade_is_read_where_it_stands_and_a_module_is_imported_once_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, imported: int
) -> None:
    """AnimaWorks' image_gen has its profile from another module; where it is no literal, both are imported, once."""
    # given
    put(tmp_path / "acme", __init__="", image_gen=source)
    more = "COMPUTED = dict(PROFILE)\nfrom os import sep\nLOCAL = {**PROFILE}\ndef cli_main(argv=None): ...\n"
    again = "from .{} import PROFILE, cli_main"
    put(tmp_path / "acme" / "parts", __init__=again.format("clients"), clients=CLIENTS + more)
    for here, there in (("many", "more"), ("more", "still"), ("still", "yet"), ("yet", "clients")):
        put(tmp_path / "acme" / "parts", **{here: again.format(there)})
    monkeypatch.syspath_prepend(tmp_path)
    # when
    registries = [discover(tmp_path / "mei", tmp_path, core="acme") for _ in range(2)]
    # then
    assert [["image_gen:3d"]] * 2 == [keys(registry) for registry in registries]
    assert [[]] * 2 == [registry.problems for registry in registries]
    assert imported == capsys.readouterr().out.count("imported")
    assert 600 == registries[0].get("image_gen", "3d").expected_seconds


@pytest.mark.usefixtures("_own_modules")
def test_a_facade_of_a_module_that_is_not_there_says_so_in_pythons_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    put(tmp_path / "acme", __init__="", image_gen=FACADE, other="from os import EXECUTION_PROFILE, cli_main\n")
    put(tmp_path / "acme", third="from sys import EXECUTION_PROFILE, cli_main\n")
    monkeypatch.syspath_prepend(tmp_path)
    # when
    registry = discover(tmp_path / "mei", tmp_path, core="acme")
    # then
    assert ["No module named 'acme.parts'", "cannot import name 'EXECUTION_PROFILE' from 'os'"] == [
        why.partition("Error: ")[2].partition(" (")[0] for _, why in registry.problems[:2]
    ]
    assert 3 == len(registry.problems)


# Asking for JSON.


def parsed(*argv: str, **option: Any) -> argparse.Namespace:  # noqa: ANN401 - whatever add_argument takes
    """Parse *argv* with a subcommand that takes an option, as a tool that is asked for JSON does."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    sub = parser.add_subparsers(dest="command")
    words = option.pop("words", ["-j", "--json"])
    child = sub.add_parser("x")
    child.add_argument("rest", nargs="*")
    group = child.add_mutually_exclusive_group()
    group.add_argument(*words, **option)
    group.add_argument("--csv", action="store_true")
    child.add_mutually_exclusive_group().add_argument("--loud", action="store_true")
    with json_asked_for():
        first = parser.parse_args(argv)
        again = parser.parse_args(argv)
    assert parser.parse_args(argv) == again  # only the first time, and only while it is asked for
    return first


def test_json_is_asked_for_where_the_option_is_a_flag_that_means_it() -> None:
    assert parsed("x", "a", action="store_true").json
    assert parsed("x", "a", "--loud", action="store_true").json
    assert parsed("x", words=["-j"], dest="json", action="store_true").json
    assert "json" == parsed("x", dest="output", action="store_const", const="json").output


def test_json_is_not_asked_for_where_the_option_means_something_else_or_is_excluded() -> None:
    assert parsed("x", words=["-j", "--jobs"]).jobs is None
    assert not parsed("x", words=["-j", "--join"], action="store_true").join
    assert not parsed("x", words=["--json"], action="store_true").json
    assert not parsed("x", "--csv", action="store_true").json
    assert not parsed("x", "a", action="store_true", default=False, dest="json").csv


def test_json_is_asked_for_on_the_command_line_of_the_program_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a parser without subcommands, and a tool that lets it take the words of the program
    monkeypatch.setattr(sys, "argv", ["program", "word"])
    parser = argparse.ArgumentParser()
    parser.add_argument("word")
    parser.add_argument("-j", "--json", action="store_true")
    # then
    with json_asked_for():
        assert argparse.Namespace(word="word", json=True) == parser.parse_args()


# Permissions.


class Granting:
    """A host's word on permissions, which may change."""

    def __init__(self, *given: str) -> None:
        self.given, self.asked = set(given), list[str]()

    def __call__(self, permission: str) -> bool:
        self.asked.append(permission)
        return permission in self.given


def gated(permits: Any = None) -> Registry:  # noqa: ANN401 - also what is none
    registry = Registry(permits=permits)
    registry.add("machine", "run", lambda: "ran", gated=True)
    registry.add("machine", "info", lambda: "told")
    return registry


@pytest.fixture
def _loud_permits(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "taken for a no" in caplog.text


@in_event_loop
async def test_a_gated_subcommand_is_refused_at_its_submit_without_the_permission() -> None:
    # given
    permits = Granting("machine_walk")
    store = MemoryTaskStore(language="en")
    async with Executor(store, gated(permits), backend=InlineBackend()) as executor:
        # when
        with pytest.raises(NotPermittedError, match="machine run needs the permission machine_run") as refused:
            await executor.submit("machine", "run")
        assert ([], ["machine_run"]) == (list(store.list()), permits.asked)
        again = pickle.loads(pickle.dumps(refused.value))
        assert (str(refused.value), "machine_run") == (str(again), again.permission)
        # and once it is given
        permits.given.add("machine_run")
        run, info = await executor.submit("machine", "run"), await executor.submit("machine", "info")
        await executor.run_until_idle()
    assert {("ran", None), ("told", None)} == {
        (store.get(each.id).result, store.get(each.id).cause) for each in (run, info)
    }


@pytest.mark.parametrize("permits", [None, Granting(), lambda _: 1 / 0])
def test_a_gated_subcommand_is_refused_when_it_is_run_for_any_submitter(permits: object) -> None:
    """Nobody who could say yes has said it: no hook, a hook that says no, and one that fails."""
    # given a task that came in through a shell, which cannot ask the host
    store = MemoryTaskStore(language="en")
    task = store.submit("machine", "run")
    executor = Executor(store, gated(permits), backend=InlineBackend()).start()
    # when
    executor.run_until_idle_sync()
    # then
    done = store.get(task.id)
    assert (Outcome.FAILED, Cause.REJECTED, 0) == (done.outcome, done.cause, done.attempt)
    [notification] = store.notifications.peek()
    assert "needs the permission machine_run, which this Anima does not have: ask the operator" in notification.text


def test_the_hook_stays_in_the_host_and_what_it_says_goes_along(
    anima: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is asked anew for each run: a supervisor runs no code of the host, and unpickles none."""
    # given a host whose hook could not be pickled
    put(anima / "tools", machine=MACHINE)
    given: set[str] = set()
    registry = discover(anima, permits=lambda permission: permission in given)
    store = TaskStore(anima, language="en", durability="process")
    refused = submit(capsys, "machine", "run", "rm")
    executor = Executor(store, registry, max_workers=1).start()
    try:
        executor.run_until_idle_sync(timeout=PATIENCE)
        # when
        given.add("machine_run")
        allowed = submit(capsys, "machine", "run", "ls")
        executor.run_until_idle_sync(timeout=PATIENCE)
    finally:
        executor.stop()
    # then
    assert Cause.REJECTED is store.get(refused).cause
    assert "ran run ls\n" == store.get(allowed).result
    copy = pickle.loads(pickle.dumps(registry))
    copy.check_permission(copy.get("machine", "run"))
    assert (True, False) == (copy.permits("machine_run"), copy.permits("machine_info"))


HOST = """
from animaworks_tasks import Registry
registry = Registry(permits=lambda permission: permission == "door_open")
registry.add_command("door", "open", ["echo", "open"], gated=True)
registry.add_command("door", "lock", ["echo", "locked"], gated=True)
"""


@pytest.mark.usefixtures("_own_modules", "anima")
def test_a_direct_call_asks_the_hook_of_the_registry_that_the_caller_names(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # given
    host = str(put(tmp_path / "site", house=HOST) / "house.py")
    # then
    assert 0 == main(["--registry", host, "door", "open"])
    assert "open\n" == capfd.readouterr().out
    assert 2 == main(["--registry", host, "door", "lock"])
    assert "needs the permission door_lock" in capfd.readouterr().err


@pytest.mark.usefixtures("_own_modules")
def test_only_the_host_has_a_word_on_permissions_not_the_tools(tmp_path: Path) -> None:
    """An agent can write a tool into its own directory."""
    # given
    put(tmp_path / "mei" / "tools", house=HOST)
    # when
    registry = discover(tmp_path / "mei", tmp_path)
    # then
    assert registry.permits is None
    named = Registry()
    load_import_path(named, str(tmp_path / "mei" / "tools" / "house.py"))
    assert named.permits is not None
    mine = Registry(permits=Granting())
    load_import_path(mine, str(tmp_path / "mei" / "tools" / "house.py"))
    assert isinstance(mine.permits, Granting)


@pytest.mark.usefixtures("_own_modules")
def test_run_permits_what_its_operator_says(anima: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    put(anima / "tools", machine=MACHINE)
    store = TaskStore(anima, durability="process")
    refused = submit(capsys, "machine", "run")
    command = ["run", "--backend", "thread", "--until-idle"]
    assert 0 == main(command)
    allowed = submit(capsys, "machine", "run")
    # when
    assert 0 == main([*command, "--permit", "machine_run", "--permit", "other"])
    # then
    assert (Cause.REJECTED, "ran run\n") == (store.get(refused).cause, store.get(allowed).result)


def test_async_hosts_and_plain_ones_use_the_same_registry(anima: Path) -> None:
    """As docs/animaworks.md has it: the registry is made off the loop, where importing may take its time."""

    async def host() -> list[str]:
        return keys(await asyncio.to_thread(discover, anima))

    assert keys(discover(anima)) == asyncio.run(host())
