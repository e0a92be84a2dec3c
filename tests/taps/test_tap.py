"""Tap strings, what they pick, and what is recorded."""

import gc
import weakref

import pytest
import torch
from torch import nn

from kd_det.errors import ConfigError
from kd_det.taps import Enough, Tap, TapSet, levels_of


class Net(nn.Module):
    """A backbone with an in-place ReLU behind each convolution, a tower shared by three levels, and a method."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.same = nn.Identity()
        self.tower = nn.Conv2d(4, 2, 1)
        self.ran = 0

    def targets(self, x):
        return [x * 2, x + 1], 3

    def forward(self, image):
        self.ran += 1
        x = self.stem(image)
        maps = [x, x[..., ::2, ::2], x[..., ::4, ::4]]
        y = self.same(x * 3)
        y.relu_()
        outs = [self.tower(m) for m in maps]
        self.targets(outs[0])
        return outs


def read(net, *texts, image=None):
    taps = [Tap.parse(text) for text in texts]
    with TapSet(net, taps) as recorded:
        result = net(torch.randn(1, 3, 8, 8) if image is None else image)
    return result, [recorded.read(tap) for tap in taps]


@pytest.mark.parametrize(
    'text, path, kind, method, index',
    [
        ('neck', 'neck', 'output', '', ()),
        ('neck[1:4]', 'neck', 'output', '', (slice(1, 4),)),
        (' neck[-1][::2] ', 'neck', 'output', '', (-1, slice(None, None, 2))),
        ('neck.fpn_convs.3.conv', 'neck.fpn_convs.3.conv', 'output', '', ()),
        ('roi_head.bbox_head[0]', 'roi_head.bbox_head', 'output', '', (0,)),
        ('bbox_head.get_targets()', 'bbox_head', 'method', 'get_targets', ()),
        ('bbox_head.get_targets()[0]', 'bbox_head', 'method', 'get_targets', (0,)),
        ('extract_feat()', '', 'method', 'extract_feat', ()),
        ('roi_head.bbox_roi_extractor@in[1]', 'roi_head.bbox_roi_extractor', 'input', '', (1,)),
    ],
)
def test_grammar(text, path, kind, method, index):
    tap = Tap.parse(text)
    assert (tap.path, tap.kind, tap.method, tap.index) == (path, kind, method, index)
    assert tap.text == text.strip()


@pytest.mark.parametrize(
    'text',
    [
        '',
        'neck[',
        'neck[]',
        'neck[a]',
        'neck[1:2:3:4]',
        'neck..conv',
        '.neck',
        'neck.',
        'neck[0]x',
        'a@out',
        'neck()()',
        None,
        3,
        'neck conv',
        'neck[1,2]',
        '()',
    ],  # fmt: skip
)
def test_what_is_no_tap_is_refused_and_shown(text):
    with pytest.raises(ConfigError) as error:
        Tap.parse(text, 'distill.a.student')
    assert str(error.value).startswith(f'distill.a.student: {text!r} is not a tap; expected')


def test_a_path_is_followed_and_the_nearest_names_are_given():
    net = Net()
    assert Tap.parse('stem.1').module(net) is net.stem[1]
    assert Tap.parse('targets()').module(net) is net
    with pytest.raises(ConfigError, match=r"distill.a.teacher: 'towr': Net has no module 'towr'.*Nearest: 'tower'"):
        Tap.parse('towr').module(net, 'distill.a.teacher')
    with pytest.raises(ConfigError, match=r"'stem.7': Net has no module.*'stem.0'"):
        Tap.parse('stem.7').module(net)
    with pytest.raises(ConfigError, match=r"has no method 'target'.*Nearest: 'targets'"):
        Tap.parse('target()').module(net)
    with pytest.raises(ConfigError, match='has no module'):
        Tap.parse('ran').module(net)  # an attribute that is no module


def test_picks_outputs_inputs_methods_and_one_level_per_call():
    net, image = Net(), torch.randn(2, 3, 8, 8)
    result, (tower, first, part, source, targets, factor) = read(
        net, 'tower', 'tower[0]', 'tower[1:]', 'stem@in[0]', 'targets()[0][1]', 'targets()[1]', image=image
    )
    assert [t.shape[-1] for t in tower] == [8, 4, 2]
    for level, out in zip(tower, result):
        assert level is out
    assert first is result[0] and [p is r for p, r in zip(part, result[1:])] == [True, True]
    assert source is image
    assert torch.equal(targets, result[0] + 1) and factor == 3


def test_picks_that_do_not_exist_are_refused():
    net = Net()
    with pytest.raises(ConfigError, match=r"'tower\[3\]': index \[3\] on a reading of 3 items; expected 0 to 2"):
        read(net, 'tower[3]')
    with pytest.raises(ConfigError, match=r'index \[0\] on a tensor .*, which is no list; drop it'):
        read(net, 'stem[0]')
    with pytest.raises(ConfigError, match=r'slice \[5:\] is empty'):
        read(net, 'tower[5:]')
    net.unused = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="'unused' was not run"):
        read(net, 'unused')
    with pytest.raises(ConfigError, match='2 items .list, int.*one tensor per level'):
        levels_of(read(net, 'targets()')[1][0])


def test_methods_record_on_their_own_instance_and_are_restored():
    ours, theirs = Net(), Net()
    tap, image = Tap.parse('targets()'), torch.randn(1, 3, 4, 4)
    mine, others = TapSet(ours, [tap]), TapSet(theirs, [tap])
    with mine:
        with others:
            theirs(image)
            out = ours(image)
        theirs(image)
    assert len(mine.recorders[tap.source].data_buffer) == len(others.recorders[tap.source].data_buffer) == 1
    assert torch.equal(mine.read(tap)[0][0], out[0] * 2)
    assert not torch.equal(others.read(tap)[0][0], out[0] * 2)
    for net in (ours, theirs):
        assert 'targets' not in net.__dict__ and net.targets.__func__ is Net.targets
    with pytest.raises(ZeroDivisionError), mine:
        assert 'targets' in ours.__dict__
        raise ZeroDivisionError
    assert 'targets' not in ours.__dict__


def test_a_method_that_was_replaced_on_the_instance_comes_back():
    net = Net()
    own = net.targets = lambda x: 'own'
    with TapSet(net, [Tap.parse('targets()')]) as taps:
        net(torch.randn(1, 3, 4, 4))
    assert taps.read(Tap.parse('targets()')) == 'own'
    assert net.targets is own


def test_nothing_is_recorded_outside():
    net = Net()
    tap = Tap.parse('tower')
    taps = TapSet(net, [tap])
    net(torch.randn(1, 3, 4, 4))
    assert taps.counts() == {tap.source: 0}
    for _ in range(2):
        with taps:
            net(torch.randn(1, 3, 4, 4))
        assert taps.counts() == {tap.source: 3}  # entering forgets the last forward
    taps.clear()
    assert taps.counts() == {tap.source: 0}


@pytest.mark.parametrize('text, plain', [('stem.0', lambda n, x: n.stem[0](x)), ('same', lambda n, x: n.stem(x) * 3)])
def test_what_is_overwritten_in_place_is_copied(text, plain):
    """The pre-activation of a convolution whose ReLU works in place, and of an identity, which returns its input."""
    torch.manual_seed(0)
    net, image, tap = Net(), torch.randn(1, 3, 8, 8), Tap.parse(text)
    nn.init.normal_(net.stem[0].bias, -0.5)
    for module in (net.stem[1],):  # the stem's output is never negative: make the identity's be
        module.register_forward_hook(lambda m, i, o: o - 1 if text == 'same' else o)
    expected = plain(net, image)
    assert (expected < 0).any()
    taps = TapSet(net, [tap])
    taps.watch_versions()
    with taps:
        net(image)
    assert taps.copy_overwritten() == [text]
    with taps:
        net(image)
    reading = taps.read(tap)
    assert torch.equal(reading, expected)
    reading.sum().backward()  # and it is in the graph
    assert net.stem[0].weight.grad.abs().sum() > 0


def test_two_taps_on_one_tensor_are_both_copied():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.drop, self.relu = nn.Conv2d(1, 1, 1), nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.drop(self.conv(x)))

    net, x = Twice(), torch.randn(1, 1, 6, 6)
    a, b = Tap.parse('conv'), Tap.parse('drop')
    taps = TapSet(net, [a, b])
    taps.watch_versions()
    with taps:
        net(x)
    assert taps.copy_overwritten() == ['conv', 'drop']
    with taps:
        net(x)
    for tap in (a, b):
        assert torch.equal(taps.read(tap), net.conv(x))


def test_what_a_method_returned_is_copied_too():
    class Method(nn.Module):
        def made(self, x):
            return [x + 1]

        def forward(self, x):
            return self.made(x)[0].zero_()

    net, tap = Method(), Tap.parse('made()[0]')
    taps = TapSet(net, [tap])
    taps.watch_versions()
    with taps:
        net(torch.ones(2))
    taps.copy_overwritten()
    with taps:
        net(torch.ones(2))
    assert taps.read(tap).tolist() == [2.0, 2.0]


def test_what_is_not_overwritten_is_not_copied():
    net, tap = Net(), Tap.parse('tower')
    taps = TapSet(net, [tap])
    taps.watch_versions()
    with taps:
        net(torch.randn(1, 3, 8, 8))
    assert taps.copy_overwritten() == []


def test_a_forward_is_left_when_all_has_been_read():
    net, a, b = Net(), Tap.parse('stem.0'), Tap.parse('tower')
    ran = []
    net.same.register_forward_hook(lambda *_: ran.append('same'))
    net.tower.register_forward_hook(lambda *_: ran.append('tower'))
    taps = TapSet(net, [a, b])
    taps.stop_at({a.source: 1, b.source: 2})
    with taps:
        net(torch.randn(1, 3, 8, 8))
        raise AssertionError('not left early')
    assert ran == ['same', 'tower', 'tower'] and taps.counts() == {a.source: 1, b.source: 2}
    taps.stop_at(None)
    with taps:
        net(torch.randn(1, 3, 8, 8))
    assert taps.counts() == {a.source: 1, b.source: 3}
    assert not isinstance(Enough(), Exception)  # a network that catches exceptions does not swallow it


def test_clearing_frees_the_graph():
    net, tap = Net(), Tap.parse('stem.0')
    taps = TapSet(net, [tap])
    with taps:
        net(torch.randn(1, 3, 8, 8))
    gone = weakref.ref(taps.read(tap))
    assert gone() is not None
    taps.clear()
    gc.collect()
    assert gone() is None
