"""The demo's progress display: one bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ['Display', 'hours']


def hours(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f'{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}'


def _clock(seconds: float) -> str:
    return hours(seconds) if seconds >= 3600 else f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


class Display:
    """Shows how far the whole demo is, and how long it will still take.

    Work is counted in units (one plain student step = 1). The time left follows from the units done so far in this
    run; parts that are reused count neither way.

    Args:
        stream: Where to write; ``sys.stdout`` if None.
    """

    def __init__(self, stream=None) -> None:
        self.console = Console(file=stream or sys.stdout, highlight=False)
        self.live = self.console.is_terminal
        self.total = self.done = 0.0
        self._start = time.perf_counter()
        self._label = ''
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=30),
            TextColumn('{task.percentage:>3.0f} %  {task.fields[clock]}'),
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task('preparing', total=1, clock='')

    def __enter__(self) -> Display:
        if self.live:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            self._bar.stop()

    def plan(self, units: float) -> None:
        """Say how much work there is in all."""
        self.total, self._start = units, time.perf_counter()

    def start(self, label: str) -> None:
        """A new part begins."""
        self._label = label
        self._refresh(label)

    def advance(self, units: float, text: str = '') -> None:
        """Some work is done; ``text`` stands beside the bar."""
        self.done += units
        self._refresh(f'{self._label} {text}')

    def milestone(self, text: str) -> None:
        """Worth a line where there is no terminal."""
        if not self.live:
            self.say(f'[{self._times()}] {self._label} {text}')

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _times(self) -> str:
        spent = time.perf_counter() - self._start
        if not self.done:
            return _clock(spent)
        return f'{_clock(spent)}, about {_clock(spent / self.done * max(self.total - self.done, 0))} left'

    def _refresh(self, text: str) -> None:
        if self.live:
            self._bar.update(
                self._task, description=text, completed=self.done, total=max(self.total, 1e-9), clock=self._times()
            )
