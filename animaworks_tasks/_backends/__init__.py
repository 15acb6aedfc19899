"""Where calls run: in threads, in processes that outlive their host, in any futures executor, or right here."""

from animaworks_tasks._backends._futures import FuturesBackend
from animaworks_tasks._backends._inline import InlineBackend
from animaworks_tasks._backends._processes import ProcessBackend
from animaworks_tasks._backends._protocol import Backend
from animaworks_tasks._backends._threads import ThreadBackend

__all__ = ["Backend", "FuturesBackend", "InlineBackend", "ProcessBackend", "ThreadBackend"]
