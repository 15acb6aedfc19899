"""
Pictures and 3D models of a character, by services on the web: ``image_gen fullbody PROMPT``, ``image_gen 3d IMAGE``.

A directory of tools takes it with the files beside it, those with a leading underscore too::

    $ export ANIMAWORKS_ANIMA_DIR=$PWD/my-anima
    $ mkdir -p my-anima/tools && cp examples/tools/*.py my-anima/tools
    $ pip install httpx
    $ MESHY_API_KEY=... BFL_API_KEY=... animaworks-tool run &
    $ animaworks-tool submit image_gen pipeline 'a knight in red armour' --output knight

The task's result, some minutes later::

    {
      "directory": "/home/mei/knight",
      "files": ["fullbody.png", "bustup.png", "chibi.png", "model.glb", "rigged.glb", "animated.glb"],
      "made": ["fullbody", "bustup", "chibi", "3d", "rigging", "animations"]
    }

If a step fails, or the machine does, the same command goes on after the last step that was finished: the state is
``knight/pipeline.json``. Each step is a subcommand as well:

    fullbody, bustup, chibi    a picture, by NovelAI or Flux; with --reference, of the character in another picture
    3d                         a textured model (GLB) of what a picture shows, by Meshy
    rigging                    the model with a skeleton, by Meshy; humanoids only
    animations                 the skeleton in motion, by Meshy

What the environment of the host says:

    NOVELAI_TOKEN, BFL_API_KEY, MESHY_API_KEY         the keys; a subcommand needs those of its service
    NOVELAI_BASE_URL, BFL_BASE_URL, MESHY_BASE_URL    where the services are, if not in their usual place
    IMAGE_GEN_POLL_SECONDS (5)                        between two looks at how far a service is
    IMAGE_GEN_SILENCE_SECONDS (120)                   without a byte, until a service is given up
    IMAGE_GEN_RETRY_SECONDS (1)                       before the second try of a request, doubled for each further one
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock, Timeout

from animaworks_tasks import BadArgument, Registry, ToolContext, ToolError

if TYPE_CHECKING:
    from ._drawing import Wish
    from ._http import Patience, Report
    from ._pipeline import Pipeline

registry = Registry()

Engine = Literal["auto", "novelai", "flux"]

LARGEST_INPUT: Final = 32 << 20  # bytes of a picture or model that is sent
WAIT: Final = 1500.0  # seconds; less than the longest run, so that we can say how to go on
LOOKS: Final[Mapping[str, tuple[str, int, int]]] = {
    # what is added to the prompt, and the size in pixels
    "fullbody": (
        "full body, standing, facing the viewer, arms slightly away from the body, plain background",
        832,
        1216,
    ),
    "bustup": ("upper body, portrait, facing the viewer, plain background", 1024, 1024),
    "chibi": ("chibi, full body, standing, arms slightly away from the body, plain background", 1024, 1024),
}


@contextmanager
def _beside() -> Iterator[None]:
    """Import what lies beside us, only when it is used, as httpx takes its time; say how to get what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").rpartition(".")[2]
        ours = missing.startswith("_")
        hint = f"copy {missing}.py there too, from examples/tools" if ours else f"`pip install {missing}`"
        raise ToolError(f"{missing} is missing, which {__file__} needs", hint=hint) from error


# --- pictures ---


@registry.tool("image_gen", "fullbody", expected_seconds=120, timeout_seconds=900)
async def fullbody(
    prompt: str,
    *,
    reference: Path | None = None,
    engine: Engine = "auto",
    seed: int | None = None,
    output: Path | None = None,
    context: ToolContext,
) -> dict[str, object]:
    """
    Draw a character from head to toe.

    Args:
        prompt: The character, in words.
        reference: A PNG of the same character; without one, it is made up.
        engine: auto takes one that has a key.
        seed: The same number draws the same picture.
        output: Where the PNG goes; default fullbody-TASK.png in the working directory.
        context: Where progress goes.

    Raises:
        BadArgument: An argument cannot be used, or the service refuses it.
        MissingCredential: There is no key, or it is not accepted.
        ToolError: The service cannot do it now.
    """
    return await _picture("fullbody", prompt, reference, engine, seed, output, context)


@registry.tool("image_gen", "bustup", expected_seconds=120, timeout_seconds=900)
async def bustup(
    prompt: str,
    *,
    reference: Path | None = None,
    engine: Engine = "auto",
    seed: int | None = None,
    output: Path | None = None,
    context: ToolContext,
) -> dict[str, object]:
    """
    Draw a character's head and shoulders.

    Args:
        prompt: The character, in words.
        reference: A PNG of the same character; without one, it is made up.
        engine: auto takes one that has a key.
        seed: The same number draws the same picture.
        output: Where the PNG goes; default bustup-TASK.png in the working directory.
        context: Where progress goes.

    Raises:
        ToolError: As :func:`fullbody`.
    """
    return await _picture("bustup", prompt, reference, engine, seed, output, context)


@registry.tool("image_gen", "chibi", expected_seconds=120, timeout_seconds=900)
async def chibi(
    prompt: str,
    *,
    reference: Path | None = None,
    engine: Engine = "auto",
    seed: int | None = None,
    output: Path | None = None,
    context: ToolContext,
) -> dict[str, object]:
    """
    Draw a character small, with a large head.

    Args:
        prompt: The character, in words.
        reference: A PNG of the same character; without one, it is made up.
        engine: auto takes one that has a key.
        seed: The same number draws the same picture.
        output: Where the PNG goes; default chibi-TASK.png in the working directory.
        context: Where progress goes.

    Raises:
        ToolError: As :func:`fullbody`.
    """
    return await _picture("chibi", prompt, reference, engine, seed, output, context)


async def _picture(
    look: str,
    prompt: str,
    reference: Path | None,
    engine: Engine,
    seed: int | None,
    output: Path | None,
    context: ToolContext,
) -> dict[str, object]:
    with _beside():
        from ._drawing import choose, draw
        from ._results import destination, publish
    # First what costs nothing: no picture is paid for that has no place to go.
    wish = _wish(look, prompt, None if reference is None else _read_png(reference), seed)
    path = destination(output, f"{look}-{context.task_id}.png")
    chosen = choose(engine, reference=reference is not None)
    data = await draw(chosen, wish, context, _patience(), context.progress)
    publish(path, data)
    context.progress(1.0, f"{len(data) / 1e6:.1f} MB")
    return {"file": str(path), "bytes": len(data), "engine": chosen}


def _wish(look: str, prompt: str, reference: bytes | None, seed: int | None) -> Wish:
    with _beside():
        from ._drawing import Wish
    if not prompt.strip():
        raise BadArgument("the prompt is empty", hint="describe the character in words")
    words, width, height = LOOKS[look]
    described = f"{prompt.strip()}, {words}"
    if reference is not None:
        described += ", the same character as in the picture"
    return Wish(prompt=described, width=width, height=height, reference=reference, seed=seed)


# --- models ---


@registry.tool("image_gen", "3d", expected_seconds=600, on_interrupt="retry")
async def model_3d(
    image: Path, *, output: Path | None = None, resume: str = "", wait: float = WAIT, context: ToolContext
) -> dict[str, object]:
    """
    Make a textured 3D model (GLB) of what a picture shows.

    Args:
        image: A PNG or JPEG: one object or character, all of it, before a plain background.
        output: Where the GLB goes; default 3d-TASK.glb in the working directory.
        resume: The id of a task of Meshy's to go on waiting for, at no further cost; the picture is not sent again.
        wait: Longest time in seconds until Meshy has finished.
        context: Where progress goes.

    Raises:
        BadArgument: An argument cannot be used, or Meshy refuses it.
        MissingCredential: There is no key, or it is not accepted.
        ToolError: Meshy has failed, or cannot do it now.
    """
    picture = _read_input(image, {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}, "a PNG or JPEG")
    return await _model("3d", {"image_url": picture, "should_texture": True}, output, resume, wait, context)


@registry.tool("image_gen", "rigging", expected_seconds=600, on_interrupt="retry")
async def rigging(
    model: Path,
    *,
    height: float = 1.7,
    output: Path | None = None,
    resume: str = "",
    wait: float = WAIT,
    context: ToolContext,
) -> dict[str, object]:
    """
    Give a humanoid 3D model a skeleton.

    Args:
        model: A textured GLB, or the id of the task of Meshy's that made it (`meshy_task` in the result of 3d).
        height: Of the character, in metres.
        output: Where the GLB goes; default rigging-TASK.glb in the working directory.
        resume: The id of a task of Meshy's to go on waiting for, at no further cost.
        wait: Longest time in seconds until Meshy has finished.
        context: Where progress goes.

    Raises:
        ToolError: As :func:`model_3d`.
    """
    if not 0 < height < 100:  # noqa: PLR2004 - metres, and no character
        raise BadArgument(f"a height of {height} m", hint="give metres, as in --height 1.7")
    return await _model("rigging", {**_source(model), "height_meters": height}, output, resume, wait, context)


def _source(model: Path) -> dict[str, str]:
    with _beside():
        from ._meshy import is_task
    if is_task(model.name) and not model.exists():
        return {"input_task_id": model.name}
    return {"model_url": _read_input(model, {b"glTF": "application/octet-stream"}, "a GLB")}


@registry.tool("image_gen", "animations", expected_seconds=600, on_interrupt="retry")
async def animations(
    rig_task: str,
    *,
    action: int = 0,
    output: Path | None = None,
    resume: str = "",
    wait: float = WAIT,
    context: ToolContext,
) -> dict[str, object]:
    """
    Animate a rigged character; RIG_TASK: its `meshy_task`.

    Args:
        rig_task: The id of the task of Meshy's that rigged it (`meshy_task` in the result of rigging).
        action: A number of https://docs.meshy.ai/api/animation-library; 0 is idle, 1 walking.
        output: Where the GLB goes; default animations-TASK.glb in the working directory.
        resume: The id of a task of Meshy's to go on waiting for, at no further cost.
        wait: Longest time in seconds until Meshy has finished.
        context: Where progress goes.

    Raises:
        ToolError: As :func:`model_3d`.
    """
    with _beside():
        from ._meshy import check_task
    task = check_task(rig_task, "the `meshy_task` of a rigging")
    return await _model("animations", {"rig_task_id": task, "action_id": action}, output, resume, wait, context)


async def _model(
    kind: str, body: Mapping[str, object], output: Path | None, resume: str, wait: float, context: ToolContext
) -> dict[str, object]:
    with _beside():
        from ._http import api as api_of
        from ._meshy import Memory, check_task, glb, service
        from ._results import destination, publish
    if not wait > 0:
        raise BadArgument(f"--wait {wait} leaves Meshy no time", hint="give seconds, as in --wait 900")
    if resume:
        check_task(resume, "what the notification of the first try says")
    path = destination(output, f"{kind}-{context.task_id}.glb", anew=context.attempt == 1)
    begun = context.scratch / "meshy_task"  # outlives us: if we are run again, no second task is paid for

    def keep(task: str | None) -> None:
        publish(begun, (task or "").encode())

    memory = Memory(
        known=resume or (begun.read_text() if begun.exists() else "") or None,
        keep=keep,
        how="submit the same with `--resume {}` to go on with what is begun, at no further cost",
    )
    async with api_of(context, service(), _patience()) as api:
        task, data = await glb(api, kind, body, memory, wait)
    publish(path, data)
    context.progress(1.0, f"{len(data) / 1e6:.1f} MB")
    return {"file": str(path), "bytes": len(data), "meshy_task": task}


# --- all of it ---


@registry.tool("image_gen", "pipeline", expected_seconds=1800, on_interrupt="retry")
async def pipeline(
    prompt: str,
    *,
    engine: Engine = "auto",
    seed: int | None = None,
    action: int = 0,
    output: Path = Path("character"),
    wait: float = WAIT,
    context: ToolContext,
) -> dict[str, object]:
    """
    Make a character in six steps; run again, it goes on after the last finished one.

    The steps: fullbody, bustup, chibi, 3d (from the chibi), rigging, animations.

    Args:
        prompt: The character, in words.
        engine: What draws the pictures; auto takes one that has a key.
        seed: The same number draws the same pictures.
        action: As of animations.
        output: The directory for the files and the state of the work, pipeline.json.
        wait: Longest time in seconds for each of Meshy's steps.
        context: Where progress goes.

    Raises:
        ToolError: As the steps; or the directory holds something else, or another pipeline is at work in it.
    """
    with _beside():
        from ._drawing import choose
        from ._meshy import service
        from ._results import make_directory
    # Before anything is drawn, all that can be found wrong without paying.
    _wish("fullbody", prompt, None, seed)
    service()
    choose(engine, reference=False)
    if not wait > 0:
        raise BadArgument(f"--wait {wait} leaves Meshy no time", hint="give seconds, as in --wait 900")
    directory = Path.cwd() / output
    make_directory(directory)
    try:
        with FileLock(directory / ".pipeline.lock", timeout=0):
            return await _run_pipeline(
                directory, {"prompt": prompt, "engine": engine, "seed": seed, "action": action}, wait, context
            )
    except Timeout as error:
        raise ToolError(
            f"another task is at work in {str(directory)!r}",
            hint="wait for its notification, or give another directory with --output",
        ) from error


async def _run_pipeline(
    directory: Path, asked: Mapping[str, Any], wait: float, context: ToolContext
) -> dict[str, object]:
    with _beside():
        from ._http import with_hint
        from ._meshy import share_of
        from ._pipeline import FILES, Pipeline
    work = Pipeline.open(directory, asked)
    made: list[str] = []
    for number, step in enumerate(FILES):
        if work.is_done(step):
            context.logger.info("%s is done: %s", step, work.file(step))
            continue
        share = share_of(context.progress, number / 6, (number + 1) / 6, f"{step} ({number + 1} of 6)")
        try:
            if step in LOOKS:
                work.finish(step, await _pipeline_picture(work, step, asked, context, share))
            else:
                work.finish(step, *await _pipeline_model(work, step, asked, wait, context, share))
        except ToolError as error:
            done = ", ".join(work.done) or "no step"
            on = f"submitted again in the same words, it goes on from here; {done} of {len(FILES)} done"
            raise with_hint(type(error)(f"{step}: {error}", hint=error.hint), on) from error
        made.append(step)
    context.progress(1.0, "all steps are done")
    return {"directory": str(directory), "files": list(FILES.values()), "made": made}


async def _pipeline_picture(
    work: Pipeline, step: str, asked: Mapping[str, Any], context: ToolContext, share: Report
) -> bytes:
    with _beside():
        from ._drawing import choose, draw
    reference = None if step == "fullbody" else _read_png(work.file("fullbody"))
    chosen = choose(asked["engine"], reference=reference is not None)
    wish = _wish(step, asked["prompt"], reference, asked["seed"])
    return await draw(chosen, wish, context, _patience(), share)


async def _pipeline_model(
    work: Pipeline,
    step: str,
    asked: Mapping[str, Any],
    wait: float,
    context: ToolContext,
    share: Report,
) -> tuple[bytes, str]:
    with _beside():
        from ._http import api as api_of
        from ._meshy import Memory, glb, service
    body: Mapping[str, object]
    if step == "3d":
        body = {
            "image_url": _read_input(work.file("chibi"), {b"\x89PNG": "image/png"}, "a PNG"),
            "should_texture": True,
        }
    elif step == "rigging":
        body = {"input_task_id": work.task("3d")}
    else:
        body = {"rig_task_id": work.task("rigging"), "action_id": asked["action"]}
    memory = Memory(
        known=work.begin(step),
        keep=lambda task: work.remember(step, task),
        how="Meshy's task {} is waited for then, and no other paid for",
    )
    async with api_of(context, service(), _patience(), share) as api:
        task, data = await glb(api, step, body, memory, wait)
    return data, task


# --- what is given ---


def _patience() -> Patience:
    with _beside():
        from ._http import Patience
    return Patience.of("IMAGE_GEN", silence=120.0)


def _read_input(file: Path, kinds: Mapping[bytes, str], wanted: str) -> str:
    """Return *file* as a data URI; *kinds* has its media type by how it begins."""
    data = _read(file)
    media = next((media for magic, media in kinds.items() if data.startswith(magic)), None)
    if media is None:
        raise BadArgument(f"{str(file)!r} is not {wanted}", hint=f"give {wanted}")
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def _read_png(file: Path) -> bytes:
    data = _read(file)
    with _beside():
        from ._drawing import not_png
    if problem := not_png(data):
        raise BadArgument(f"{str(file)!r} is {problem}", hint="give a PNG of the character")
    return data


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > LARGEST_INPUT:
            raise BadArgument(f"{str(file)!r} is larger than {LARGEST_INPUT >> 20} MiB", hint="give a smaller one")
        return file.read_bytes()
    except OSError as error:
        # Where a relative path begins, the one who typed it may not know.
        raise BadArgument(
            f"{str(Path.cwd() / file)!r} cannot be read: {error.strerror}", hint="give the absolute path of a file"
        ) from error
