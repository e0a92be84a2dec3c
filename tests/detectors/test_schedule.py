"""When a term counts."""

import pytest

from kd_det.detectors import Schedule
from kd_det.errors import ConfigError


@pytest.mark.parametrize(
    'cfg, expected',
    [
        (None, {0: 1, 0.5: 1, 99: 1}),
        (dict(begin=2), {0: 0, 1.99: 0, 2: 1, 50: 1}),
        (dict(end=3), {0: 1, 2.99: 1, 3: 0, 9: 0}),
        (dict(warmup=4), {0: 0, 1: 0.25, 2: 0.5, 4: 1, 9: 1}),
        (dict(begin=1, warmup=2, end=4), {0: 0, 1: 0, 1.5: 0.25, 2: 0.5, 3: 1, 3.9: 1, 4: 0}),
    ],
)
@pytest.mark.parametrize('by_epoch', [True, False])
def test_factor(cfg, expected, by_epoch):
    schedule = Schedule.from_config(cfg and dict(cfg, by_epoch=by_epoch), 'distill.a')
    for now, factor in expected.items():
        at = (7, now) if by_epoch or cfg is None else (now, 7.0)
        assert schedule.factor(*at) == pytest.approx(factor), now


@pytest.mark.parametrize(
    'cfg, says',
    [
        (dict(begn=1), r"distill.a.schedule: unknown option 'begn'.*Nearest: 'begin'"),
        (dict(begin=-1), 'distill.a.schedule: begin=-1.*expected 0 <= begin'),
        (dict(begin=2, warmup=3, end=4), 'begin=2, warmup=3, end=4.*begin . warmup <= end'),
        (3, 'distill.a.schedule: found 3, expected such as dict'),
        (dict(begin='2'), "distill.a.schedule: found begin='2', expected a number"),
    ],
)
def test_wrong_schedules_are_refused(cfg, says):
    with pytest.raises(ConfigError, match=says):
        Schedule.from_config(cfg, 'distill.a')
