"""What surrounds the steps: where the time goes, and signals that ask the loop to stop."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass
class Clock:
    """Where the time of this process went, in seconds.

    Attributes:
      start: when the clock was made.
      spent: what -> seconds, such as `evaluation`, `input_wait`, `checkpoint`.
      steps: training steps taken in this process.
    """

    start: float = dataclasses.field(default_factory=time.perf_counter)
    spent: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: int = 0

    @contextlib.contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Adds the time spent inside the context to `what`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + time.perf_counter() - began

    @property
    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.start

    @property
    def training(self) -> float:
        """Seconds that went into steps and their input."""
        aside = sum(seconds for what, seconds in self.spent.items() if what != 'input_wait')
        return max(self.total - aside, 1e-9)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yields an event that SIGINT or SIGTERM sets, so that the loop saves and stops instead of dying mid-step."""
    event = threading.Event()
    handlers = {}
    # Python takes signal handlers in the main thread only; elsewhere the loop runs to its end.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
