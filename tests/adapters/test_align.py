"""The adapter of terms that name none: widths, sizes, level counts."""

import pytest
import torch
import torch.nn.functional as F

from kd_det.adapters import Align
from kd_det.errors import ConfigError

MAPS = [torch.randn(2, 4, 8, 12), torch.randn(2, 4, 4, 6)]


def prepared(ours, theirs, **options):
    same = options.pop('same_channels', True)
    align = Align(**options)
    align.prepare(ours, theirs, {}, 'distill.a', same)
    return align


def test_equal_maps_pass_untouched_and_add_no_weights():
    theirs = [torch.randn_like(m) for m in MAPS]
    align = prepared(MAPS, theirs)
    pairs = align(MAPS, theirs, {})
    assert [p.student is m and p.teacher is t for p, m, t in zip(pairs, MAPS, theirs)] == [True, True]
    assert [p.extras for p in pairs] == [dict(level=0), dict(level=1)]
    assert list(align.parameters()) == [] and align.notes == ['-', '-']


def test_a_convolution_appears_only_where_channels_differ():
    theirs = [torch.randn(2, 7, 8, 12), torch.randn(2, 4, 4, 6)]
    align = prepared(MAPS, theirs)
    assert [tuple(p.shape) for p in align.parameters()] == [(7, 4, 1, 1), (7,)]
    assert align.notes == ['1x1 4→7', '-']
    first, second = align(MAPS, theirs, {})
    conv = align.convs[0]
    by_hand = torch.einsum('oc,bchw->bohw', conv.weight[..., 0, 0], MAPS[0]) + conv.bias[:, None, None]
    torch.testing.assert_close(first.student, by_hand)
    assert second.student is MAPS[1]
    assert not list(prepared(MAPS, theirs, same_channels=False).parameters())  # the loss aligns by itself


@pytest.mark.parametrize('resize', ['student', 'teacher'])
def test_sizes_are_resized_as_stated(resize):
    theirs = [torch.randn(2, 4, 16, 24), torch.randn(2, 4, 4, 5)]
    align = prepared(MAPS, theirs, resize=resize)
    assert align.notes == [f'resize {resize}'] * 2
    for pair, s, t in zip(align(MAPS, theirs, {}), MAPS, theirs):
        if resize == 'student':
            s = F.interpolate(s, t.shape[2:], mode='bilinear', align_corners=False)
        else:
            t = F.interpolate(t, s.shape[2:], mode='bilinear', align_corners=False)
        assert torch.equal(pair.student, s) and torch.equal(pair.teacher, t)


@pytest.mark.parametrize('training', [True, False])
def test_norm_is_batch_norm_without_weights_on_both_sides(training):
    """After the convolution; by the statistics of the batch at hand, in evaluation too."""
    ours = [3 * torch.randn(2, 4, 8, 12) + 5]
    theirs = [torch.randn(2, 7, 8, 12) - 9]
    align = prepared(ours, theirs, norm=True).train(training)
    assert align.notes == ['1x1 4→7, norm'] and not list(align.buffers()) and len(list(align.parameters())) == 2
    (pair,) = align(ours, theirs, {})
    torch.testing.assert_close(
        pair.student, torch.nn.BatchNorm2d(7, eps=1e-3, affine=False)(align.convs[0](ours[0])), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        pair.teacher, torch.nn.BatchNorm2d(7, eps=1e-3, affine=False)(theirs[0]), rtol=1e-4, atol=1e-5
    )


def test_norm_of_one_value_and_of_what_is_no_map():
    one = torch.randn(1, 4, 1, 1)
    (pair,) = prepared(one, one, norm=True)(one, 3 * one, {})
    assert torch.equal(pair.student, torch.zeros_like(one)) and torch.equal(pair.teacher, torch.zeros_like(one))
    with pytest.raises(ConfigError, match=r'adapter.norm is for maps.*\(2, 4\).*Drop norm'):
        prepared(torch.randn(2, 4), torch.randn(2, 4), norm=True)


def test_sizes_of_the_running_batch_count_not_those_of_the_plan():
    align = prepared(MAPS[0], MAPS[0])
    (pair,) = align(torch.randn(1, 4, 5, 5), torch.randn(1, 4, 10, 10), {})
    assert pair.student.shape == pair.teacher.shape == (1, 4, 10, 10)


def test_what_cannot_be_aligned_is_refused():
    with pytest.raises(
        ConfigError, match=r'student tap gives 2 levels \(4x8x12, 4x4x6\), the teacher tap 1.*slice.*0:1'
    ):
        prepared(MAPS, MAPS[:1])
    with pytest.raises(ConfigError, match='level 0 measures 8x12 in the student and 4x6 in the teacher'):
        prepared(MAPS[0], MAPS[1], resize='none')
    with pytest.raises(ConfigError, match='as many dimensions'):
        prepared(MAPS[0], MAPS[0].flatten(2))
    with pytest.raises(ConfigError, match="resize: found 'both', expected one of 'student', 'teacher', 'none'"):
        Align(resize='both')
    fixed = Align()
    fixed.layout_is_fixed = True
    with pytest.raises(ConfigError, match='same number of classes'):
        fixed.prepare(MAPS[0], torch.randn(2, 5, 8, 12), {}, 'distill.a')
    with pytest.raises(ConfigError, match='gave 1 and 1 levels; the plan saw 2'):
        prepared(MAPS, MAPS)(MAPS[:1], MAPS[:1], {})
