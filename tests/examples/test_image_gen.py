"""The image_gen example against servers with the services' protocols: what it makes, what it tells of each failure."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from filelock import FileLock

pytest.importorskip("httpx", reason="what the examples need is optional")

from animaworks_tasks import Cause, Outcome, ToolError
from tests.example_runs import QUICK, Anima, Recorder, assert_each_fails, call_here, examples, run_here
from tests.http_servers import (
    PNG,
    Answer,
    Flux,
    Loopback,
    Meshy,
    NovelAI,
    Script,
    glb,
    png,
    ready,
    silent,
    task,
    zipped,
)

KEY: Final = "right-key-0123456789"
WRONG_KEY: Final = "wrong-key-0123456789"
AGAIN: Final = {"Retry-After": "0"}
NOW_AND_THEN: Final = Answer({"message": "RateLimitExceeded"}, 429, AGAIN)


def failed(message: str) -> Answer:
    """Return what Meshy says of a task that failed."""
    return Answer(task("x", "FAILED", 0, task_error={"message": message}))


MESHY: Final[Script] = {
    "POST limited": [NOW_AND_THEN, NOW_AND_THEN],
    "GET recovers": [Answer("bad gateway", 502), Answer(task("x", "PENDING", 0), cut=5)],
    "POST broken": [Answer({"message": "oops"}, 500)] * 4,
    "POST poor": [Answer({"message": "Insufficient funds"}, 402)],
    "POST patient": [Answer({"message": "NoMorePendingTasks"}, 429, {"Retry-After": "3600"})],
    "POST html": [Answer(b"<html>Welcome to the hotel</html>")],
    "POST odd": [Answer({"id": 7})],
    "POST refused": [Answer({"message": "Image is too small"}, 400)],
    "POST ambiguous": [Answer({"result": "never seen"}, cut=3)],
    "POST gateway": [Answer(b"<html>Bad gateway</html>", 502)],
    "POST silent": [silent],
    "POST asleep": [silent],
    "GET hopeless": [failed("The image has no object")],
    "GET slow": [Answer(task("x", "IN_PROGRESS", 40))] * 1000,
    "GET cut": [ready, *[Answer(glb("cut"), cut=9)] * 4],
    "GET half": [ready, Answer(glb("half", promised=5))],
    "GET expired": [ready, Answer(b"<Error/>", 403)],
    "GET elsewhere": [
        Answer(task("x", "SUCCEEDED", 100, model_urls={"glb": "ftp://files.example/x.glb?Signature=secret"}))
    ],
    "GET stumbles": [failed("Pose estimation failed")],
}


@attrs.frozen
class Web:
    """The three services, and where a host finds them."""

    meshy: Loopback
    novelai: Loopback
    flux: Loopback

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MESHY_BASE_URL": self.meshy.url,
            "NOVELAI_BASE_URL": self.novelai.url,
            "BFL_BASE_URL": self.flux.url,
            "MESHY_API_KEY": KEY,
            "NOVELAI_TOKEN": KEY,
            "BFL_API_KEY": KEY,
        }


@pytest.fixture
def web() -> Iterator[Web]:
    """The services, with a script for each scenario of this file."""
    meshy = Meshy(MESHY)
    novelai = NovelAI(
        {
            "POST locked": [Answer({"statusCode": 429, "message": "Concurrent generation is locked"}, 429, AGAIN)],
            "POST torn": [Answer(zipped(png("torn"))[:-9])],
            "POST text": [Answer(zipped(b"not a picture"))],
            "POST empty": [Answer(zipped(b"", "readme.txt"))],
        }
    )
    flux = Flux(
        {
            "GET rude": [Answer({"status": "Request Moderated", "result": None})],
            "GET unlucky": [Answer({"status": "Error", "result": None})],
            "POST wordless": [
                Answer({"detail": [{"loc": ["body", "prompt"], "msg": "too short", "type": "value_error"}]}, 422)
            ],
            "POST astray": [Answer({"id": "1", "polling_url": "https://evil.example/v1/get_result?id=1"})],
        }
    )
    with ExitStack() as stack:
        yield Web(*(stack.enter_context(Loopback(each)) for each in (meshy, novelai, flux)))


@pytest.fixture
def here(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The services, found by tools that run in this process, in a directory of their own."""
    for name, value in {**QUICK, **web.environment, "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return web


def picture(directory: Path, scenario: str) -> str:
    """Leave a picture for a scenario; return its name."""
    (directory / f"{scenario}.png").write_bytes(png(scenario))
    return f"{scenario}.png"


def refusing() -> str:
    """Return the URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


# --- submitted in a shell ---


def test_each_subcommand_publishes_its_file_and_the_notification_says_where(web: Web, tmp_path: Path) -> None:
    # given an Anima whose services work, some after a moment
    anima = Anima(tmp_path / "mei", web.environment)
    rig = "018a210d-8ba4-705c-b111-1f1776f7f578"
    (anima.work / "model.glb").write_bytes(glb("model"))
    limited, recovers, knight = (picture(anima.work, name) for name in ("limited", "recovers", "knight"))
    calls = {
        "limited.glb": ("3d", limited),
        "recovers.glb": ("3d", recovers),
        "rigged.glb": ("rigging", "model.glb"),
        "again.glb": ("rigging", rig),
        "walk.glb": ("animations", rig, "--action", "1"),
        "full.png": ("fullbody", "a knight", "--seed", "7"),
        "deep/down/bust.png": ("bustup", "locked", "--engine", "novelai", "--reference", knight),
        "chibi.png": ("chibi", "a knight", "--reference", knight),
    }

    # when
    ids = {name: anima.submit("image_gen", *words, "--output", name) for name, words in calls.items()}
    ids["beside"] = anima.submit("image_gen", "fullbody", "a squire")
    anima.run()

    # then
    for name in calls:
        notification, data = anima.notification(ids[name]), (anima.work / name).read_bytes()
        assert "# Background task completed: image_gen:" in notification, notification
        assert f'"file": "{anima.work / name}"' in notification
        assert f'"bytes": {len(data)}' in notification
        assert data.startswith(b"glTF" if name.endswith(".glb") else PNG)
    assert (anima.work / f"fullbody-{ids['beside']}.png").is_file()
    assert '"meshy_task": "018a210d-8ba4-705c-b111-' in anima.notification(ids["rigged.glb"])
    assert '"engine": "flux"' in anima.notification(ids["chibi.png"])
    assert [] == [*anima.work.rglob(".*")]

    # and the services were asked as they want to be, the files without the key
    sent = [request.json for request in web.meshy.requests if request.method == "POST"]
    assert {"model_url", "height_meters"} == set(sent[-3])
    assert {"input_task_id": rig, "height_meters": 1.7} == sent[-2]
    assert {"rig_task_id": rig, "action_id": 1} == sent[-1]
    assert all("authorization" not in each.headers for each in web.meshy.requests if "/files/" in each.path)
    assert "img2img" in [request.json["action"] for request in web.novelai.requests]
    assert all("x-key" not in each.headers for each in web.flux.requests if "/sample/" in each.path)
    secrets = [KEY, "Signature"]
    assert not any(secret in anima.notification(each) + anima.log(each) for each in ids.values() for secret in secrets)


TOOL, TIMEOUT, ARGUMENTS = Cause.TOOL, Cause.TIMEOUT, Cause.ARGUMENTS
FAILURES: Final = (
    # what is submitted, its cause, what the notification says of it, and what to do
    ("3d broken.png", TOOL, "Meshy is out of order (500: oops)", "submit --delay 600"),
    ("3d poor.png", TOOL, "Meshy has no credits left for this (402", "add credits at https://"),
    ("3d patient.png", TOOL, "Meshy is asked too often (429", "`animaworks-tool submit --delay 3600"),
    ("3d html.png", TOOL, "what is no JSON object: '<html>Welcome", "MESHY_BASE_URL is right"),
    ("3d odd.png", TOOL, "JSON without 'result'", "MESHY_BASE_URL is right"),
    ("3d refused.png", ARGUMENTS, "refuses this (400: Image is too small)", "correct what it names"),
    ("3d gateway.png", TOOL, "Meshy is out of order (502)", "first: it may have been done, and paid for"),
    ("3d ambiguous.png", TOOL, "Meshy hung up in the middle", "may have been done, and paid for"),
    ("3d silent.png", TIMEOUT, "timed out: Meshy said nothing for 1 s", "look at https://www.meshy.ai"),
    ("3d hopeless.png", TOOL, "ended FAILED: The image has no object", "credits back"),
    ("3d slow.png --wait 0.5", TIMEOUT, "(IN_PROGRESS, 40 %)", "`--resume 018a210d-8ba4-705c-b111-"),
    ("3d cut.png", TOOL, "Meshy hung up in the middle of its answer", "--resume 018a210d"),
    ("3d half.png", TOOL, "18 of the 23 bytes of a GLB; nothing was published", "--resume 018a210d"),
    ("3d expired.png", TOOL, "Meshy refuses its own download", "--resume 018a210d"),
    ("3d elsewhere.png", TOOL, "gives ftp://files.example/x.glb as the place", "MESHY_BASE_URL"),
    ("3d no-such.png", ARGUMENTS, "work/no-such.png' cannot be read: No such file", "absolute path"),
    ("3d notes.txt", ARGUMENTS, "notes.txt' is not a PNG or JPEG", "give a PNG or JPEG"),
    ("3d odd.png --output notes.txt", ARGUMENTS, "is there already", "another name"),
    (
        "3d odd.png --resume 018a210d-8ba4-705c-b111-aaaaaaaaaaaa", ARGUMENTS,
        "Meshy refuses this (404: Task not found)", "begin anew",
    ),
    ("animations ../../balance", ARGUMENTS, "is no id of a task of Meshy's", "`meshy_task` of a rigging"),
    ("rigging notes.txt", ARGUMENTS, "is not a GLB", "give a GLB"),
    ("fullbody torn", TOOL, "no whole zip; nothing was published", "submit it again"),
    ("fullbody text", TOOL, "NovelAI sent what is no PNG", "submit it again"),
    ("fullbody empty", TOOL, "NovelAI's zip holds no picture", "submit it again"),
    ("fullbody rude --engine flux", ARGUMENTS, "Request Moderated", "in other words"),
    ("chibi unlucky --engine flux", TOOL, "Flux could not draw it: Error", "submit it again"),
    ("bustup wordless --engine flux", ARGUMENTS, "(422: body.prompt too short)", "correct"),
    ("bustup astray --engine flux", TOOL, "the key is not sent there", "BFL_BASE_URL is right"),
    ("fullbody ' '", ARGUMENTS, "the prompt is empty", "describe the character"),
    ("3d asleep.png", TIMEOUT, "it ran longer than 0.3 s", "give it less to do, or more time"),
)  # fmt: skip


@pytest.mark.slow
def test_each_failure_is_told_with_its_cause_and_the_next_step_and_nothing_is_published(
    web: Web, tmp_path: Path
) -> None:
    # given
    anima = Anima(tmp_path / "mei", web.environment)
    (anima.work / "notes.txt").write_text("buy milk")
    for scenario in [
        word.removesuffix(".png") for command, *_ in FAILURES for word in command.split() if ".png" in word
    ]:
        if scenario != "no-such":
            picture(anima.work, scenario)
    before = {*anima.work.iterdir()}

    # when
    ids = assert_each_fails(anima, "image_gen", FAILURES)

    # then
    for command, task_id in ids.items():
        seen = anima.notification(task_id) + anima.log(task_id)
        assert not any(secret in seen for secret in (KEY, "Signature")), command
    assert before == {*anima.work.iterdir()}
    assert (anima.work / "notes.txt").read_text() == "buy milk"
    # and what costs money was asked for again only where nothing had been done
    asked = Counter(web.meshy.service.scenario(each) for each in web.meshy.requests if each.method == "POST")
    assert {"broken": 4, "ambiguous": 1, "silent": 1} == {
        name: asked[name] for name in ("broken", "ambiguous", "silent")
    }


@pytest.mark.slow
def test_a_host_without_keys_or_services_is_told_which_and_what_to_do(web: Web, tmp_path: Path) -> None:
    # given a host that has no key for Meshy, a wrong one for Flux, and no way to NovelAI
    environment = web.environment | {"MESHY_API_KEY": "", "BFL_API_KEY": WRONG_KEY, "NOVELAI_BASE_URL": refusing()}
    anima = Anima(tmp_path / "mei", environment)
    drawing = picture(anima.work, "drawing")

    # when
    unset = anima.submit("image_gen", "3d", drawing)
    early = anima.submit("image_gen", "pipeline", "a knight")
    wrong = anima.submit("image_gen", "chibi", "a knight", "--engine", "flux")
    alone = anima.submit("image_gen", "fullbody", "a knight", "--engine", "novelai")
    anima.run()

    # then
    for each in (unset, early):
        assert "- Cause: credentials: only the operator can set what is missing." in anima.notification(each)
        assert "] failed: MESHY_API_KEY is not set, and Meshy needs a key\n" in anima.notification(each)
        assert "- What to do: ask the operator to set MESHY_API_KEY in the host's environment" in anima.notification(
            each
        )
    assert "- Cause: credentials: " in anima.notification(wrong)
    assert "Flux does not accept the key in BFL_API_KEY (403: Not authenticated" in anima.notification(wrong)
    assert "set BFL_API_KEY to a valid key, from https://dashboard.bfl.ai" in anima.notification(wrong)
    assert "- Cause: tool: " in anima.notification(alone)
    assert f"nobody answers at {environment['NOVELAI_BASE_URL']}, where NovelAI should be" in anima.notification(alone)
    assert "this machine is online, and NOVELAI_BASE_URL is right" in anima.notification(alone)
    assert not any(WRONG_KEY in anima.notification(each) + anima.log(each) for each in (unset, wrong, alone))
    # and nothing was spent on a pipeline that could not have come to its end
    assert [] == web.novelai.requests


def test_a_pipeline_run_again_goes_on_after_the_last_finished_step(web: Web, tmp_path: Path) -> None:
    # given a service that fails once, in the middle
    anima = Anima(tmp_path / "mei", web.environment)
    words = ("image_gen", "pipeline", "stumbles", "--output", "knight")

    # when the same is submitted twice
    first, second = anima.submit(*words), anima.submit(*words)
    anima.run()

    # then the first tells what is done and how to go on
    assert "3d: Meshy's task 018a210d-8ba4-705c-b111-000000000001 ended FAILED: Pose est" in anima.notification(first)
    assert "in the same words, it goes on from here; fullbody, bustup, chibi of 6 done" in anima.notification(first)

    # and the second has made the rest
    result = json.loads(anima.store.get(second).result or "")
    assert ["3d", "rigging", "animations"] == result["made"]
    assert {*result["files"], "pipeline.json", ".pipeline.lock"} == {
        path.name for path in (anima.work / "knight").iterdir()
    }
    assert 1 == len(web.novelai.paths("POST"))
    assert 2 == len(web.flux.paths("POST"))
    assert ["image-to-3d", "image-to-3d", "rigging", "animations"] == [
        path.rpartition("/")[2] for path in web.meshy.paths("POST")
    ]


# --- in this process ---


def test_progress_follows_the_service(here: Web, tmp_path: Path) -> None:
    recorder = Recorder()
    report, _ = call_here(recorder, "image_gen", "3d", picture(tmp_path, "knight"))
    assert report.error is None
    assert here.meshy.paths("POST")
    fractions = [fraction for fraction, _ in recorder.reports if fraction is not None]
    assert sorted(fractions) == fractions
    assert 1.0 == fractions[-1]


def test_a_cancelled_wait_ends_and_run_again_it_waits_for_the_task_that_was_paid_for(here: Web, tmp_path: Path) -> None:
    # given someone who asks for a stop once Meshy is at work on it
    recorder = Recorder(lambda _: len(here.meshy.paths("GET")) > 2)
    words = ("3d", picture(tmp_path, "slow"), "--output", "slow.glb")
    report, task = call_here(recorder, "image_gen", *words)
    assert (True, False) == (report.cancelled, (tmp_path / "slow.glb").exists())

    # when the same task is run again, as after the death of its host, and Meshy has come to an end
    recorder._cancelled = lambda: False
    here.meshy.service.script.clear()
    report, _ = call_here(recorder, "image_gen", *words, task=task)

    # then
    assert (None, True) == (report.error, (tmp_path / "slow.glb").exists())
    assert 1 == len(here.meshy.paths("POST"))


def test_cancelling_does_not_wait_for_a_silent_service(here: Web) -> None:
    """Whatever the backend: nothing here is a signal."""
    here.novelai.service.script["POST dumb"] = [silent]
    report, _ = call_here(Recorder(lambda _: bool(here.novelai.requests)), "image_gen", "fullbody", "dumb")
    assert report.cancelled


def test_one_can_go_on_waiting_for_a_task_of_an_earlier_call(here: Web, tmp_path: Path) -> None:
    # given
    _, notification = run_here("image_gen", "3d", picture(tmp_path, "slow"), "--wait", "0.05")
    resume = notification.partition("`--resume ")[2].partition("`")[0]
    here.meshy.service.script.clear()

    # when
    done, _ = run_here("image_gen", "3d", "slow.png", "--resume", resume, "--output", "slow.glb")

    # then
    assert Outcome.COMPLETED == done.outcome
    assert 1 == len(here.meshy.paths("POST"))


def test_a_redirected_download_is_followed_a_few_times(here: Web, tmp_path: Path) -> None:
    here.meshy.service.script["GET far"] = [ready, Answer(b"", 302, {"Location": "?again"}), Answer(glb("far"))]
    here.meshy.service.script["GET round"] = [ready, *[Answer(b"", 302, {"Location": "?again"})] * 9]
    far, _ = run_here("image_gen", "3d", picture(tmp_path, "far"))
    circle, _ = run_here("image_gen", "3d", picture(tmp_path, "round"))
    assert (Outcome.COMPLETED, Outcome.FAILED) == (far.outcome, circle.outcome)
    assert "Meshy sends the download in circles" == circle.error


def test_a_download_that_is_too_large_is_stopped(here: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside("_http"), "LARGEST_FILE", 5)
    done, _ = run_here("image_gen", "3d", picture(tmp_path, "knight"))
    assert "Meshy sends more than 0 MiB, and it was stopped there" == done.error
    assert here.meshy.paths("GET")


def beside(name: str) -> Any:  # noqa: ANN401 - a module that no type checker can see
    """Return what lies beside the tool, as it is imported there."""
    return import_module(
        f".{name}", examples().resolve("image_gen", ["pipeline", "x"]).load().__globals__["__package__"]
    )


@pytest.fixture
def bfl(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - as above
    """Flux as it is spoken to where it really lives; nothing is sent."""
    monkeypatch.setenv("BFL_BASE_URL", "")
    monkeypatch.setenv("BFL_API_KEY", KEY)
    http = beside("_http")
    return http.Api(beside("_drawing").flux(), http.Patience.of("IMAGE_GEN", silence=1.0), None, None)


@pytest.mark.parametrize(
    "url",
    ["/v1/get_result?id=1", "https://api.bfl.ai/v1/get_result?id=1", "https://api.eu4.bfl.ai/v1/get_result?id=1"],
)
def test_the_key_goes_to_the_service_and_its_family(bfl: Any, url: str) -> None:  # noqa: ANN401 - as above
    assert bfl._address(url).startswith("https://api.")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.bfl.ai/v1/get_result?id=1",
        "https://evilbfl.ai/v1/get_result",
        "https://api.bfl.ai.evil.example/",
        "https://api.bfl.ai@evil.example/",
        "https://[::1",
    ],
)
def test_the_key_goes_nowhere_else(bfl: Any, url: str) -> None:  # noqa: ANN401 - as above
    with pytest.raises(ToolError, match="which is not its own: the key is not sent there"):
        bfl._address(url)


@pytest.mark.parametrize(
    "url", ["https://delivery-eu.bfl.ai/a.png?sig=secret", "https://bfldeliveryprod.blob.core.windows.net/a.png"]
)
def test_a_download_is_followed_over_https(bfl: Any, url: str) -> None:  # noqa: ANN401 - as above
    bfl._check_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://delivery-eu.bfl.ai/a.png?sig=secret",
        "https://127.0.0.1/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a.png",
        "https://localhost/a.png",
        "https://user:secret@files.example/a.png",
        "file:///etc/passwd",
    ],
)
def test_a_download_is_not_followed_into_our_own_network_or_in_the_open(bfl: Any, url: str) -> None:  # noqa: ANN401
    with pytest.raises(ToolError, match="as the place of a download, which is not followed") as caught:
        bfl._check_address(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_can_be_none_is_not_shown(
    here: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MESHY_API_KEY", value)
    done, notification = run_here("image_gen", "3d", picture(tmp_path, "knight"))
    assert (Cause.CREDENTIALS, []) == (done.cause, here.meshy.requests)
    assert value not in notification


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MESHY_BASE_URL", "user:password@meshy", "MESHY_BASE_URL holds no http or https URL"),
        ("IMAGE_GEN_POLL_SECONDS", "soon", "IMAGE_GEN_POLL_SECONDS is 'soon', which is no number of seconds"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(
    here: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    done, notification = run_here("image_gen", "3d", picture(tmp_path, "knight"))
    assert (said, []) == (done.error, here.meshy.requests)
    assert f"ask the operator to {'set' if 'URL' in variable else 'correct or unset'}" in notification


# --- the state of a pipeline ---


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in {".png", ".glb"}}


def test_a_file_that_is_deleted_is_made_again_with_all_that_was_made_from_it(here: Web, tmp_path: Path) -> None:
    # given a character that is done
    words = ("image_gen", "pipeline", "knight", "--output", str(tmp_path / "knight"))
    run_here(*words)
    before = files(tmp_path / "knight")

    # then: done is done; the bust stands alone; the 3D model carries the rest
    for deleted, made in (
        (None, []),
        ("bustup.png", ["bustup"]),
        ("model.glb", ["3d", "rigging", "animations"]),
        ("fullbody.png", ["fullbody", "bustup", "chibi", "3d", "rigging", "animations"]),
    ):
        if deleted:
            (tmp_path / "knight" / deleted).unlink()
        done, _ = run_here(*words)
        assert made == json.loads(done.result or "")["made"], deleted
    assert before.keys() == files(tmp_path / "knight").keys()
    assert here.meshy.requests


def test_a_picture_that_was_touched_up_is_used_as_it_is(here: Web, tmp_path: Path) -> None:
    # given a pipeline that stopped at the 3D model, and a chibi that somebody improved
    words = ("image_gen", "pipeline", "stumbles", "--output", str(tmp_path / "knight"))
    assert Outcome.FAILED == run_here(*words)[0].outcome
    (tmp_path / "knight" / "chibi.png").write_bytes(png("improved"))

    # when
    run_here(*words)

    # then
    assert {"stumbles", "improved"} == {*here.meshy.service.scenarios.values()}
    assert png("improved") == (tmp_path / "knight" / "chibi.png").read_bytes()


def test_a_task_of_meshys_that_was_begun_is_waited_for_instead_of_paying_for_another(here: Web, tmp_path: Path) -> None:
    # given a pipeline that ran out of patience
    words = ("image_gen", "pipeline", "slow", "--output", str(tmp_path / "knight"))
    done, notification = run_here(*words, "--wait", "0.05")
    assert Cause.TIMEOUT == done.cause
    assert "Meshy's task 018a210d-8ba4-705c-b111-000000000001 is waited for then, and no other paid for" in notification

    # when
    here.meshy.service.script.clear()
    done, _ = run_here(*words)

    # then
    assert Outcome.COMPLETED == done.outcome
    assert 3 == len(here.meshy.paths("POST"))


def test_a_directory_of_another_pipeline_or_of_none_is_left_alone(here: Web, tmp_path: Path) -> None:
    # given
    knight, own, broken = tmp_path / "knight", tmp_path / "own", tmp_path / "broken"
    run_here("image_gen", "pipeline", "knight", "--output", str(knight))
    for directory in (own, broken):
        directory.mkdir()
    (own / "fullbody.png").write_bytes(b"mine")
    (broken / "pipeline.json").write_text('{"version": 1, "asked"')
    spent = len(here.novelai.requests)

    # then
    for directory, said in (
        (knight, "holds the pipeline of another character: prompt 'knight'"),
        (own, "own/fullbody.png' is there already, and not from here"),
        (broken, "broken/pipeline.json' is no state of a pipeline"),
    ):
        done, notification = run_here("image_gen", "pipeline", "a queen", "--output", str(directory))
        assert Cause.ARGUMENTS == done.cause
        assert said in notification
        assert "give another directory with --output" in notification
    assert spent == len(here.novelai.requests)
    assert b"mine" == (own / "fullbody.png").read_bytes()


def test_two_pipelines_at_once_do_not_share_a_directory(here: Web, tmp_path: Path) -> None:
    (tmp_path / "knight").mkdir()
    with FileLock(tmp_path / "knight" / ".pipeline.lock"):
        done, notification = run_here("image_gen", "pipeline", "knight", "--output", str(tmp_path / "knight"))
    assert "another task is at work in" in str(done.error)
    assert "wait for its notification" in notification
    assert [] == here.novelai.requests


# --- as a tool ---


def test_listing_it_loads_neither_httpx_nor_what_lies_beside_it() -> None:
    lines = [
        "import sys",
        "from tests.example_runs import assert_each_fails, examples",
        "tools = examples()",
        "print([tool.key for tool in tools.tools() if tool.long_running and tool.name == 'image_gen'])",
        "print('httpx' in sys.modules, [name for name in sys.modules if name.endswith('._http')])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    names = ["fullbody", "bustup", "chibi", "3d", "rigging", "animations", "pipeline"]
    assert f"{[f'image_gen:{name}' for name in names]}\nFalse []\n" == done.stdout


def test_the_promised_times_are_those_of_animaworks() -> None:
    promised = {tool.subcommand: tool.expected_seconds for tool in examples().tools() if tool.name == "image_gen"}
    models, pictures = (
        dict.fromkeys(["3d", "rigging", "animations"], 600),
        dict.fromkeys(["fullbody", "bustup", "chibi"], 120),
    )
    assert {"pipeline": 1800, **models, **pictures} == promised
