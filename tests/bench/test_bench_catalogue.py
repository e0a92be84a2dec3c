"""The table of methods against the fragments and their terms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from kd_det.bench.catalogue import FAMILIES, METHODS, find_method, method_or_new, parts_of
from kd_det.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FRAGMENTS = sorted((ROOT / 'configs' / '_base_' / 'distill').glob('*.py'))


def terms(fragment: Path) -> list[dict]:
    return list(Config.fromfile(fragment).distill.values())


@pytest.mark.parametrize('fragment', FRAGMENTS, ids=lambda f: f.stem)
def test_every_fragment_has_its_method_and_family(fragment):
    method = find_method(fragment.stem)
    assert fragment.stem == method.name or fragment.stem.startswith(f'{method.name}_')
    taps = [tap for term in terms(fragment) for tap in [term.get('student', term['teacher'])]]
    taps = [tap for entry in taps for tap in (entry if isinstance(entry, list) else [entry])]
    adapters = {term.get('adapter', {}).get('type') for term in terms(fragment)}
    on_heads = any('head' in tap for tap in taps)
    assert (method.family in ('logits', 'boxes', 'mixed')) == on_heads, taps
    assert (method.family == 'relation') == ('kd_det.Instances' in adapters), adapters
    assert method.needs or not on_heads, 'a method on heads asks for heads that fit'


def test_every_method_has_a_fragment_and_a_source():
    assert {find_method(f.stem).name for f in FRAGMENTS} == set(METHODS)
    for name, method in METHODS.items():
        assert name == method.name and method.family in FAMILIES and method.weights_are in ('published', 'ours')
        assert re.fullmatch(r'\d{4}\.\d{4,5}|[A-Z]+ \d{4}|', method.source), name
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert [name for name, method in METHODS.items() if not method.source] == ['kd_queries']


def test_sources_are_those_of_the_documentation():
    """docs/methods.md names the same paper in the row of the method's loss."""
    rows = [line for line in (ROOT / 'docs' / 'methods.md').read_text().splitlines() if line.startswith('| `')]
    for fragment in FRAGMENTS:
        source = find_method(fragment.stem).source
        losses = {term['loss']['type'].rpartition('.')[2] for term in terms(fragment)}
        mine = [row for row in rows if any(f'`{loss}' in row.split('|')[1] for loss in losses)]
        if 'ICLR' not in source:
            assert any(source in row for row in mine), (fragment.stem, losses)
        else:
            assert any('ICLR 2021' in row for row in mine)


def test_headers_say_whose_weights_they_are():
    """A fragment with 'Ours: the weight' in its header is no published one, and the other way round."""
    for fragment in FRAGMENTS:
        head = ' '.join(line[2:] for line in fragment.read_text().splitlines() if line.startswith('# '))
        ours = re.search(
            r'[Oo]urs: (the )?(weight|neg_weight|100 on)|weight 0\.5 are ours|for (CIFAR )?classification', head
        )
        if ours:
            assert find_method(fragment.stem).weights_are == 'ours', head


def test_fragments_of_one_method_may_differ():
    assert find_method('kd').weights_are == 'ours' and find_method('kd_two_stage').weights_are == 'published'
    assert 'anchors' in find_method('kd').needs and 'anchors' not in find_method('kd_two_stage').needs
    assert find_method('fgd_two_stage') == find_method('fgd') == METHODS['fgd']
    assert find_method('cwd_norm').title != find_method('cwd').title


def test_unknown_method_is_named_or_taken_as_new():
    with pytest.raises(ConfigError, match="found 'fgdd'.*Nearest: 'fgd'"):
        find_method('fgdd')
    new = method_or_new('mine')
    assert (new.title, new.family, new.weights_are) == ('mine', 'other', 'ours')
    assert method_or_new('fgd_yolox').title == 'FGD'


def test_a_method_under_another_name_is_that_of_its_fragment():
    strong = method_or_new('fgd_strong', 'fgd')
    assert (strong.name, strong.title, strong.family) == ('fgd_strong', 'FGD (fgd_strong)', 'feature')
    assert strong.weights_are == 'published' and strong.source == method_or_new('fgd').source
    assert method_or_new('kd', 'kd_two_stage') == find_method('kd_two_stage')  # whose weights are published
    assert method_or_new('kd', './mine.py') == find_method('kd') and method_or_new('new', './mine.py').family == 'other'


def test_methods_joined_by_plus_are_told_together():
    both = method_or_new('pkd+crosskd')
    assert (both.name, both.title, both.family) == ('pkd+crosskd', 'PKD + CrossKD', 'several')
    assert both.source == '2207.02039; 2306.11369' and both.weights_are == 'published' and both.matching_heads
    assert method_or_new('kd+ld').family == 'mixed' and method_or_new('kd+dkd').family == 'logits'
    assert method_or_new('kd+pkd').weights_are == 'ours'
    assert method_or_new('strong', 'fgd+pkd').title == 'FGD + PKD (strong)'
    assert method_or_new('pkd+mine').family == 'other'
    assert method_or_new('pkd+crosskd', 'pkd+crosskd_fcos') == both
    on_scores = {name: method_or_new(name).on_scores for name in ('kd', 'pkd', 'pkd+kd', 'pkd+ld', 'pkd+mgd')}
    assert [name for name, scores in on_scores.items() if scores] == ['kd', 'pkd+kd']
    assert method_or_new('strong', 'fgd+kd').on_scores and set(FAMILIES) >= {both.family}


def test_a_path_is_one_part():
    assert parts_of('pkd+crosskd') == ['pkd', 'crosskd'] and parts_of('pkd') == ['pkd']
    assert parts_of('mine/pkd+crosskd.py') == ['mine/pkd+crosskd.py']
