"""Where calls run: in threads, in processes that outlive their host, in any futures executor, or right here."""

from animaworks_tasks.backends.futures import FuturesBackend
from animaworks_tasks.backends.inline import InlineBackend
from animaworks_tasks.backends.processes import ProcessBackend
from animaworks_tasks.backends.protocol import Backend, Traits, traits_of
from animaworks_tasks.backends.threads import ThreadBackend

__all__ = ["Backend", "FuturesBackend", "InlineBackend", "ProcessBackend", "ThreadBackend", "Traits", "traits_of"]
