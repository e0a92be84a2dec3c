"""The progress display where there is no terminal, and on one."""

from __future__ import annotations

import io
import re

from kd_det.bench import display as display_module
from kd_det.bench.display import Display


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_tell_time_spent_and_left(monkeypatch):
    clock, stream = Clock(), io.StringIO()
    monkeypatch.setattr(display_module, 'time', clock)
    with Display(stream) as display:
        display.plan(100)
        display.start('plain, seed 0:')
        clock.now = 30.0
        display.advance(25, 'epoch 1/4')
        display.milestone('epoch 1/4')
        clock.now = 100.0
        display.advance(75)
        display.milestone('epoch 4/4')
        display.say('[bold] is no markup here')
    assert stream.getvalue().splitlines() == [
        '[0:30, about 1:30 left] plain, seed 0: epoch 1/4',
        '[1:40, about 0:00 left] plain, seed 0: epoch 4/4',
        '[bold] is no markup here',
    ]


def test_no_work_at_all_is_no_division_by_zero():
    stream = io.StringIO()
    with Display(stream) as display:
        display.plan(0)
        display.milestone('nothing to do')
    assert 'nothing to do' in stream.getvalue()


def test_a_terminal_gets_one_bar_and_no_milestones(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    stream = Terminal()
    with Display(stream) as display:
        display.plan(4)
        display.start('plain, seed 0:')
        display.advance(1, 'epoch 1/4, loss 0.50')
        display.milestone('never shown')
        display.say('kept')
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', stream.getvalue())
    assert 'never shown' not in text and 'kept' in text and '25 %' in text and 'epoch 1/4, loss 0.50' in text
