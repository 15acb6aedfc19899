"""
A language model on this machine, by Ollama: ``local_llm generate PROMPT``, ``local_llm chat MESSAGE``.

A directory of tools takes it with the files beside it, those with a leading underscore too::

    $ export ANIMAWORKS_ANIMA_DIR=$PWD/my-anima
    $ mkdir -p my-anima/tools && cp examples/tools/*.py my-anima/tools
    $ pip install httpx && ollama pull llama3.2
    $ animaworks-tool run &
    $ animaworks-tool submit local_llm generate 'Why is the sky blue? One sentence.'

The task's result, as fast as the model speaks; `animaworks-tool show` tells meanwhile how many tokens there are::

    The sky is blue because the air scatters short wavelengths of sunlight more than long ones.

A conversation goes on where it is given the same file::

    $ animaworks-tool submit local_llm chat 'My name is Mei.' --history talk.json
    $ animaworks-tool submit local_llm chat 'What is my name?' --history talk.json

What the environment of the host says:

    OLLAMA_HOST                       where Ollama is, as Ollama itself reads it; default 127.0.0.1:11434
    LOCAL_LLM_MODEL                   the model, where --model is not given; default llama3.2
    LOCAL_LLM_SILENCE_SECONDS (300)   without a token, until it is given up: a large model takes long to load
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from animaworks_tasks import BadArgument, Registry, ToolContext, ToolError

if TYPE_CHECKING:
    from ._ollama import Answer

registry = Registry()

LARGEST_HISTORY: Final = 4 << 20  # bytes; more than any model takes in
ROLES: Final = {"user", "assistant", "system", "tool"}


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


@registry.tool("local_llm", "generate", expected_seconds=300, on_interrupt="retry")
async def generate(
    prompt: str,
    *,
    model: str = "",
    system: str = "",
    temperature: float | None = None,
    max_tokens: int = 0,
    context: ToolContext,
) -> str:
    """
    Let a language model on this machine answer a prompt.

    Args:
        prompt: In words.
        model: As in `ollama list`; by default what LOCAL_LLM_MODEL says, or else llama3.2.
        system: Who the model is to be.
        temperature: 0 always says the likeliest; the model's own by default.
        max_tokens: Longest answer; 0 is as long as it likes.
        context: Where progress goes.

    Raises:
        BadArgument: An argument cannot be used, or the model is not there.
        ToolError: Ollama is not running, fails, or is silent for too long.
    """
    with _beside():
        from ._ollama import api as api_of
        from ._ollama import default_model
        from ._ollama import generate as ask
    _check_words(prompt, "prompt")
    options = _options(temperature, max_tokens)
    async with api_of(context) as api:
        answer = await ask(api, model or default_model(), prompt, system=system, options=options)
    return _told(answer, context)


@registry.tool("local_llm", "chat", expected_seconds=300, on_interrupt="retry")
async def chat(
    message: str,
    *,
    history: Path | None = None,
    model: str = "",
    system: str = "",
    temperature: float | None = None,
    max_tokens: int = 0,
    context: ToolContext,
) -> str:
    """
    Say something to a language model on this machine, in a conversation that goes on.

    Args:
        message: What to say.
        history: A JSON file with what was said before; it is made if it is not there, and the two new messages are
            added once the answer is whole. Two tasks at once must not be given the same.
        model: As for generate.
        system: Who the model is to be, at the beginning of a conversation.
        temperature: As for generate.
        max_tokens: As for generate.
        context: Where progress goes.

    Raises:
        ToolError: As :func:`generate`; or the history cannot be read.
    """
    with _beside():
        from ._ollama import api as api_of
        from ._ollama import chat as ask
        from ._ollama import default_model
        from ._results import publish
    _check_words(message, "message")
    options = _options(temperature, max_tokens)
    messages = [] if history is None else _read_history(history)
    if system and not messages:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": message})
    async with api_of(context) as api:
        answer = await ask(api, model or default_model(), messages, options=options)
    if history is not None:
        said = [*messages, {"role": "assistant", "content": answer.text}]
        publish(history, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())
    return _told(answer, context)


def _told(answer: Answer, context: ToolContext) -> str:
    context.logger.info("%d tokens in %.1f s", answer.tokens, answer.seconds)
    if answer.cut:
        context.logger.warning("it had more to say: raise --max-tokens")
    context.progress(1.0, f"{answer.tokens} tokens in {answer.seconds:.1f} s")
    return answer.text


def _check_words(text: str, name: str) -> None:
    if not text.strip():
        raise BadArgument(f"the {name} is empty", hint="say something, in quotes")


def _options(temperature: float | None, max_tokens: int) -> dict[str, object]:
    if temperature is not None and not 0 <= temperature <= 2:  # noqa: PLR2004 - as models have it
        raise BadArgument(f"a temperature of {temperature}", hint="give one from 0 to 2")
    if max_tokens < 0:
        raise BadArgument(f"an answer of {max_tokens} tokens", hint="give a positive number, or 0 for no limit")
    options: dict[str, object] = {} if temperature is None else {"temperature": temperature}
    return options | ({"num_predict": max_tokens} if max_tokens else {})


def _read_history(file: Path) -> list[dict[str, str]]:
    """Return the messages in *file*; none, if it is not there yet."""
    with _beside():
        from ._results import make_directory
    make_directory(file.absolute().parent)
    try:
        if file.stat().st_size > LARGEST_HISTORY:
            raise BadArgument(f"{str(file)!r} is longer than any model can read", hint="begin another conversation")
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadArgument(f"{str(file)!r} cannot be read: {error.strerror}", hint="give another --history") from error
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(map(_is_message, found)):
        raise BadArgument(
            f"{str(file)!r} is no conversation",
            hint='give another --history: a new name, or a JSON list of {"role": "user", "content": "..."}',
        )
    return found


def _is_message(found: object) -> bool:
    return isinstance(found, dict) and found.get("role") in ROLES and isinstance(found.get("content"), str)
