"""A process that does nothing. ``asyncio``: with an event loop, and our dependencies imported; ``python``: without."""

import sys

if sys.argv[1] == "asyncio":
    import asyncio

    import attrs  # noqa: F401 - what our dependencies weigh is not ours to answer for
    import filelock  # noqa: F401
    import typing_extensions  # noqa: F401

    async def main() -> None:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
else:
    print("ready", flush=True)
    sys.stdin.read()
