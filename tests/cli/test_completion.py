"""Completion: what a shell offers on Tab, asked of the program and of the real shells; a store's words stay words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Registry, TaskStore
from animaworks_tasks.cli import complete, main
from animaworks_tasks.cli.commands import COMMANDS
from animaworks_tasks.task.states import Event
from tests.conftest import begin, own
from tests.terminals import Terminal

HOSTILE = ("$(touch pwned)", "`touch pwned`", "x;touch pwned", "a b", "'q\"", "~", "*", "line\nbreak", "\x1b[2J", "-v")

Offered = Callable[..., list[str]]


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mei").mkdir()
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> TaskStore:
    store = TaskStore(anima, durability="process", language="en")
    registry = Registry()

    @registry.tool("image_gen", "3d", expected_seconds=600)
    def model(image: Path, *, size: int = 3, style: str = "plain", out: Path = Path(), fast: bool = False) -> None:
        """Make a model."""

    registry.add("web", "fetch", lambda: None)
    registry.add_command("transcribe", "audio", ["true"])
    catalogue = registry.catalogue()
    parameters = catalogue["tools"]["image_gen"]["3d"]["parameters"]
    parameters[2]["choices"] = ["plain", "toon"]
    parameters.append({"name": "more", "kind": "positional", "type": "str", "choices": ["cat", "dog"], "many": True})
    store.publish_catalogue(catalogue)
    return store


@pytest.fixture
def offered(capsys: pytest.CaptureFixture[str]) -> Offered:
    """Ask what the last word may become: the kind, and the candidates without what is said of them."""

    def ask(*words: str, to: str = "zsh", whole: bool = False) -> list[str]:
        capsys.readouterr()
        assert 0 == main(["__complete", to, *words])
        said = capsys.readouterr()
        assert "" == said.err
        return [line if whole else line.partition("\t")[0] for line in said.out.splitlines()]

    return ask


# What is offered.


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sh"], ["nothing", "show"]),
        (["--v"], ["nothing", "--version"]),
        (["--anima-dir", ""], ["directories"]),
        (["--anima-dir=x"], ["directories"]),
        (["--registry", ""], ["nothing"]),
        (["-j", "--tools", "x", "canc"], ["nothing", "cancel"]),
        (["im"], ["nothing", "image_gen"]),
        (["list", "--st"], ["nothing", "--state"]),
        (["list", "--state", "f"], ["nothing", "failed"]),
        (["list", "--state=f"], ["nothing", "--state=failed"]),
        (["list", "--limit", ""], ["nothing"]),
        (["list", "--limit", "3", "--wa"], ["nothing", "--watch"]),
        (["list", ""], ["nothing"]),
        (["list", "--anima-dir", ""], ["directories"]),
        (["report", "--html", ""], ["files"]),
        (["run", "--tools", ""], ["directories"]),
        (["completion", "z"], ["nothing", "zsh"]),
        (["submit", "--pr"], ["nothing", "--priority"]),
        (["submit", "--help"], ["nothing", "--help"]),
        (["submit", "--key", ""], ["nothing"]),
        (["submit", "--anima-dir", ""], ["directories"]),
        (["submit", "--key", "k", "tr"], ["nothing", "transcribe"]),
        (["submit", "image_gen", ""], ["nothing", "3d"]),
        (["submit", "nobody", ""], ["files"]),
        (["submit", "transcribe", "audio", ""], ["files"]),
        (["submit", "image_gen", "3d", ""], ["files"]),
        (["submit", "image_gen", "3d", "a.png", ""], ["nothing", "cat", "dog"]),
        (["submit", "image_gen", "3d", "--size", "4", "a.png", "cat", "d"], ["nothing", "dog"]),
        (["submit", "image_gen", "3d", "--s"], ["nothing", "--size", "--style"]),
        (["submit", "image_gen", "3d", "--no"], ["nothing", "--no-fast"]),
        (["submit", "image_gen", "3d", "--style", ""], ["nothing", "plain", "toon"]),
        (["submit", "image_gen", "3d", "--style=t"], ["nothing", "--style=toon"]),
        (["submit", "image_gen", "3d", "--size", ""], ["nothing"]),
        (["submit", "web", "fetch", ""], ["nothing"]),
        (["submit", "image_gen", "3d", "--out", ""], ["files"]),
        (["image_gen", ""], ["nothing", "3d"]),
        (["image_gen:3d", "a.png", "c"], ["nothing", "cat"]),
        (["submit", "image_gen:3d", "a.png", "c"], ["nothing", "cat"]),
        (["submit", "image_gen", ":", "3d", "a.png", "c"], ["nothing", "cat"]),  # as bash splits it
        (["wait", "'open", ""], ["nothing"]),
    ],
)
def test_what_may_stand_in_a_place_is_offered(offered: Offered, words: list[str], expected: list[str]) -> None:
    assert expected == offered(*words)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("store")
def test_every_option_of_a_command_is_offered(offered: Offered, command: str) -> None:
    options = [each.words[-1] for each in COMMANDS[command].arguments if each.is_option]
    assert ["nothing", *options] == offered(command, "--")


def test_every_command_and_tool_is_offered_with_what_it_is(store: TaskStore, offered: Offered) -> None:
    kind, *lines = offered("", whole=True)
    assert "nothing" == kind
    assert {
        "submit\tqueue a call of a tool; prints a receipt at once",
        "show\teverything about one task, and what to do next",
    } <= set(lines)
    assert {"image_gen\t3d", "transcribe\taudio"} <= set(lines)
    assert {*COMMANDS} <= {line.partition("\t")[0] for line in lines}
    assert ["nothing", "3d\t⚠ Make a model."] == offered("submit", "image_gen", "3", whole=True)
    assert store


def test_tasks_are_offered_to_the_commands_that_are_for_them(store: TaskStore, offered: Offered) -> None:
    pending, running = store.submit("web", "fetch", key="k").id, begin(store).task.id
    failed = store.finish(begin(store), Event.FAIL, cause=Cause.TOOL, error="no").id
    store.publish_view(own(store, store.submit("image_gen", "3d").id))
    for command in ("show", "logs", "wait"):
        assert {pending, running, failed} <= set(offered(command, ""))
    assert [failed] == offered("retry", "")[1:]
    assert failed not in offered("cancel", "")
    assert [f"{pending}\tweb:fetch pending"] == offered("show", pending[:6], whole=True)[1:]
    assert [f"{failed}\timage_gen:3d failed"] == offered("events", "--task", failed[:4], whole=True)[1:]
    assert f"{running}\timage_gen:3d running" in offered("show", "", whole=True)
    assert ["nothing"] == offered("show", failed, "")
    assert failed in offered("wait", pending, "")


def test_of_very_many_tasks_the_last_are_offered(
    store: TaskStore, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "_MOST", 2)
    ids = [store.finish(begin(store), Event.COMPLETE).id for _ in range(4)]
    for age, task_id in enumerate(reversed(ids)):
        os.utime(store.layout.done_record(task_id), (1e9 - age, 1e9 - age))
    assert ["nothing", ids[3], ids[2]] == offered("show", "")


def test_bash_takes_words_apart_and_they_are_put_together(store: TaskStore, offered: Offered) -> None:
    assert ["nothing", "failed"] == offered("list", "--state", "=", "f", to="bash")
    assert "failed" in offered("list", "--state", "=", to="bash")
    assert ["nothing", "--watch"] == offered("list", "--state", "=", "failed", "--wa", to="bash")
    assert ["directories"] == offered("list", "--anima-dir", "=", "/t", to="bash")
    assert ["nothing", "3d"] == offered("submit", "'image_gen'", "", to="bash")
    assert store


def test_the_anima_is_the_one_that_is_typed(
    store: TaskStore, offered: Offered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR")
    task = store.submit("web", "fetch").id
    assert ["nothing"] == offered("show", "")
    assert ["files"] == offered("submit", "image_gen", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in (["--anima-dir", "~/mei", "show"], [f"--anima-dir={store.location}", "show"],
                  ["show", "--anima-dir", store.location], ["show", f"--anima-dir={store.location}"]):  # fmt: skip
        assert ["nothing", task] == offered(*words, "")
    (tmp_path / "a b").symlink_to(store.location)
    assert ["nothing", task] == offered("--anima-dir", f"{tmp_path}/a\\ b", "show", "")


@pytest.mark.parametrize("words", [[], ["zsh"], ["zsh", "--anima-dir"], ["zsh", "show", "x", "--"]])
def test_a_question_that_makes_no_sense_is_answered_with_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str], anima: Path
) -> None:
    assert 0 == main(["__complete", *words])
    assert "nothing" == capsys.readouterr().out.splitlines()[0]
    assert [] == list(anima.iterdir())  # to ask makes no store


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"version": 1, "tools": []}', '{"version": 1, "tools": {"web": 3}}', "{"]
)
def test_what_cannot_be_read_is_not_offered(store: TaskStore, offered: Offered, text: str) -> None:
    Path(store.layout.catalogue).write_text(text)
    for name in ("0123456789ab", "0123456789ac"):
        (Path(store.layout.pending) / f"{name}.json").write_text(text)
    Path(store.layout.running_record("0123456789ad")).mkdir()
    assert {"0123456789ab", "0123456789ac", "0123456789ad"} == set(offered("show", "")[1:])
    assert {"files", "nothing"} & set(offered("submit", "web", ""))
    assert isinstance(offered("submit", ""), list)


def hostile(store: TaskStore) -> None:
    """Let the catalogue and a task have names that a shell would do things with."""
    spec = {"expected_seconds": None, "gated": False, "long_running": False, "parameters": None, "summary": HOSTILE[0]}
    store.publish_catalogue({"version": 1, "tools": {name: {name: spec} for name in HOSTILE}})
    for name in HOSTILE[:3]:
        store.submit(name, "sub", subcommand=name)


def test_a_word_that_would_steer_a_terminal_or_pass_for_an_option_is_not_offered(
    store: TaskStore, offered: Offered
) -> None:
    hostile(store)
    assert set(HOSTILE[:7]) == set(offered("submit", "")[1:])


def test_what_is_said_of_a_word_is_one_plain_line(store: TaskStore, offered: Offered) -> None:
    task = store.submit("a\tb\nc\x1b[2J", "x" * 500)
    (line,) = offered("show", task.id, whole=True)[1:]
    assert line.startswith(f"{task.id}\ta b c [2J:xxx")
    assert len(line) < 100


# The scripts, in the shells they are for.


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A PATH on which our program is found first."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/animaworks-tool"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom animaworks_tasks.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    (tmp_path / "home").mkdir()
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"),
            "LC_ALL": "C.UTF-8"}  # fmt: skip


def in_bash(environment: dict[str, str], *words: str) -> list[str]:
    """Return what bash would offer, one a line, as it would insert it."""
    program = """
        source <(animaworks-tool completion bash)
        COMP_WORDS=(animaworks-tool "$@"); COMP_CWORD=$#
        _animaworks_tool animaworks-tool "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", program, "bash", *words],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "" == done.stderr
    return done.stdout.splitlines()


def in_fish(environment: dict[str, str], line: str) -> list[str]:
    program = "animaworks-tool completion fish | source; complete -C $argv[1]"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program, line], env=environment, capture_output=True, text=True, check=True
    )
    assert "" == done.stderr
    return done.stdout.splitlines()


@needs("bash")
def test_bash_completes_commands_options_tools_and_tasks(store: TaskStore, environment: dict[str, str]) -> None:
    task = store.submit("web", "fetch")
    assert ["show"] == in_bash(environment, "sho")
    assert ["failed"] == in_bash(environment, "list", "--state", "=", "f")
    assert ["image_gen"] == in_bash(environment, "submit", "im")
    assert [task.id] == in_bash(environment, "cancel", task.id[:5])


@needs("bash")
def test_in_bash_the_words_of_a_store_stay_words(store: TaskStore, environment: dict[str, str], tmp_path: Path) -> None:
    """Each is quoted so that the shell, if the line is run, has the name again and nothing else."""
    hostile(store)
    found = in_bash(environment, "submit", "")
    done = subprocess.run(
        ["bash", "-c", "printf '%s\\n' " + " ".join(found)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert set(HOSTILE[:7]) == set(done.stdout.splitlines())
    in_bash(environment, "show", "")
    in_bash(environment, *HOSTILE)
    assert not (tmp_path / "pwned").exists()


@needs("bash")
def test_bash_completes_while_somebody_types(store: TaskStore, environment: dict[str, str], tmp_path: Path) -> None:
    task = store.submit("web", "fetch")
    (tmp_path / "picture.png").touch()
    with Terminal(["bash", "--norc", "--noprofile", "-i"], environment=environment) as terminal:
        terminal.type("PS1=ready; source <(animaworks-tool completion bash); echo do''ne\n")
        terminal.sees("done", "ready")
        terminal.type(f"echo animaworks-tool; animaworks-tool cancel {task.id[:6]}\t")
        terminal.sees(task.id)
        terminal.type("\x15animaworks-tool submit image_gen 3d pict\t")
        terminal.sees("picture.png")
        terminal.type("\x15animaworks-tool run --tools m\t")
        terminal.sees("mei/")
        terminal.type("\x15echo en''d\n")
        terminal.sees("end")


@pytest.mark.slow
@needs("fish")
def test_fish_completes_with_descriptions(store: TaskStore, environment: dict[str, str], tmp_path: Path) -> None:
    task = store.submit("web", "fetch")
    (tmp_path / "picture.png").touch()
    assert ["show\teverything about one task, and what to do next"] == in_fish(environment, "animaworks-tool sho")
    assert [f"{task.id}\tweb:fetch pending"] == in_fish(environment, f"animaworks-tool wait {task.id[:4]}")
    assert ["--state=failed"] == [line.strip() for line in in_fish(environment, "animaworks-tool list --state=f")]
    assert any("picture.png" in line for line in in_fish(environment, "animaworks-tool submit image_gen 3d pict"))
    assert ["mei/"] == [line.partition("\t")[0] for line in in_fish(environment, "animaworks-tool run --tools m")]
    hostile(store)
    in_fish(environment, "animaworks-tool submit ")
    in_fish(environment, "animaworks-tool show ")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
@needs("zsh")
def test_zsh_completes_while_somebody_types(store: TaskStore, environment: dict[str, str], tmp_path: Path) -> None:
    task = store.submit("web", "fetch")
    (tmp_path / "picture.png").touch()
    with Terminal(["zsh", "-f", "-i"], environment=environment, columns=150) as terminal:
        terminal.type("PS1=ready; autoload -U compinit; compinit -u -D; zstyle ':completion:*' list-prompt ''\n")
        terminal.type("source <(animaworks-tool completion zsh); echo do''ne\n")
        terminal.sees("done", "ready")
        terminal.type(f"animaworks-tool cancel {task.id[:6]}\t")
        terminal.sees(task.id)
        terminal.type("\x15animaworks-tool c\t\t")
        terminal.sees("cancel  -- ask for a task to stop", "completion  -- ")
        terminal.type("\x15animaworks-tool list --state=f\t")
        terminal.sees("--state=failed")
        terminal.type("\x15animaworks-tool submit image_gen 3d pict\t")
        terminal.sees("picture.png")
        hostile(store)
        terminal.type("\x15echo go''ne; animaworks-tool submit '$'\t")
        terminal.sees("touch")
        terminal.type("\necho en''d\n")
        terminal.sees("gone", "end")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_and_a_shell_finds_no_fault_with_it(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert 0 == main(["completion", shell])
    script = capsys.readouterr().out
    assert f"{shell} completion for animaworks-tool. To load it" in script
    assert "eval" not in script.replace("evaluated", "")
    assert 0 == main(["completion", shell, "-j"])
    assert script.splitlines()[0] in capsys.readouterr().out
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)


def test_a_shell_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["completion"])
    assert 2 == main(["completion", "tcsh"])
    assert "SHELL cannot be 'tcsh'" in capsys.readouterr().err


def test_completion_is_answered_quickly(store: TaskStore) -> None:
    """What takes long is left out of it: no registry, no executor, no rich."""
    program = "import sys; from animaworks_tasks.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", program, "__complete", "zsh", "show", ""],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = set(done.stdout.split())
    assert not imported & {"rich", "asyncio", "filelock", "json", "animaworks_tasks.tools.registry"}
    assert store
