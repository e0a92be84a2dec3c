"""The methods by name: what they compare, what they ask for, where they come from.

One row per method, however many fragments of ``configs/_base_/distill`` it has: a fragment's name is a method's name,
or that and a suffix for the detectors that it serves (``fgd_two_stage``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kd_det.errors import ConfigError, did_you_mean

__all__ = ['FAMILIES', 'METHODS', 'Method', 'find_method', 'method_or_new', 'parts_of']

#: What a method compares. 'other' is for methods that are not in the table.
FAMILIES = {
    'feature': 'feature maps',
    'relation': 'relations of instances',
    'logits': 'class scores',
    'boxes': 'boxes',
    'mixed': 'class scores and boxes',
    'several': 'more than one kind',
    'other': 'not in the catalogue',
}


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: Its name in cells and records.
        title: Its name in tables.
        family: A key of :data:`FAMILIES`.
        needs: What it asks for besides two networks with maps to compare; empty if nothing.
        weights_are: Origin of factor 1: ``'published'`` for a detector, by its authors or by the repository that the
            fragment's header names, or ``'ours'``, which includes weights published for classifiers only.
        source: arXiv id, or the place where it appeared.
        scores: Whether one of several joined methods compares class scores.
    """

    name: str
    title: str
    family: str
    needs: str
    weights_are: str
    source: str
    scores: bool = False

    @property
    def on_scores(self) -> bool:
        """Whether it compares class scores, alone or among others."""
        return self.scores or self.family in ('logits', 'mixed')

    @property
    def matching_heads(self) -> bool:
        """Whether it compares outputs of heads, so that these have to have the same shapes and meanings."""
        return _HEADS in self.needs


_HEADS = 'heads with the same classes, anchors (or points) and strides'
_STAGES = "ResNet stages of equal strides (maps before a stage's last ReLU)"

#: Name → method. The weights are those of the fragment without suffix; others are in ``_OTHER_WEIGHTS``.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method('ab', 'AB', 'feature', f'{_STAGES}; an end in its schedule', 'ours', '1811.03233'),
        Method('at', 'AT', 'feature', '', 'ours', '1612.03928'),
        Method('cc', 'CC', 'relation', '', 'ours', '1904.01802'),
        Method('chen', 'Chen et al.', 'mixed', _HEADS, 'ours', 'NIPS 2017'),
        Method('crd', 'CRD', 'relation', 'InstanceIdHook; a memory per annotated object', 'ours', '1910.10699'),
        Method('crosskd', 'CrossKD', 'mixed', f'{_HEADS}, of two towers each', 'published', '2306.11369'),
        Method('ctkd', 'CTKD', 'logits', f'{_HEADS}; no weight decay on the temperature', 'ours', '2211.16231'),
        Method('cwd', 'CWD', 'feature', '', 'published', '2011.13256'),
        Method('cwd_norm', 'CWD normalised', 'feature', '', 'published', '2011.13256'),
        Method('dist', 'DIST', 'logits', _HEADS, 'published', '2205.10536'),
        Method('dkd', 'DKD', 'logits', _HEADS, 'ours', '2203.08679'),
        Method('fbkd', 'FBKD', 'feature', '', 'published', 'ICLR 2021'),
        Method('fgd', 'FGD', 'feature', '', 'published', '2111.11837'),
        Method('fitnet', 'FitNet', 'feature', '', 'published', '1412.6550'),
        Method('fsp', 'FSP', 'feature', '', 'ours', 'CVPR 2017'),
        Method('ft', 'FT', 'feature', "a first run for the teacher's paraphrasers", 'ours', '1802.04977'),
        Method('ickd', 'ICKD', 'feature', '', 'ours', '2202.03680'),
        Method('kd', 'KD', 'logits', _HEADS, 'ours', '1503.02531'),
        Method('kd_queries', 'KD of queries', 'mixed', 'DETR-type heads with the same classes', 'ours', ''),
        Method('ld', 'LD', 'boxes', f'{_HEADS}, of distributions over distances (GFL)', 'published', '2102.12252'),
        Method('logit_std', 'Logit std.', 'logits', f'{_HEADS}; three classes at least', 'ours', '2403.01427'),
        Method('mgd', 'MGD', 'feature', '', 'published', '2205.01529'),
        Method('nst', 'NST', 'feature', '', 'ours', '1707.01219'),
        Method('ofa', 'OFA', 'logits', _HEADS, 'ours', '2310.19444'),
        Method('ofd', 'OFD', 'feature', _STAGES, 'ours', '1904.01866'),
        Method('pkd', 'PKD', 'feature', '', 'published', '2207.02039'),
        Method('pkt', 'PKT', 'relation', '', 'ours', '1803.10837'),
        Method('qfl', 'QFL', 'logits', _HEADS, 'published', '2306.11369'),
        Method('reviewkd', 'ReviewKD', 'feature', '', 'published', '2104.09044'),
        Method('rkd', 'RKD', 'relation', '', 'ours', '1904.05068'),
        Method('sdd', 'SDD', 'logits', 'a second stage that pools before one linear classifier', 'ours', '2403.13512'),
        Method('sp', 'SP', 'relation', '', 'ours', '1907.09682'),
        Method('ssdkd', 'MultiBox', 'mixed', 'SSD heads with the same classes and anchors', 'published', 'NIPS 2017'),
        Method('vid', 'VID', 'feature', '', 'ours', '1904.05835'),
    )
}

#: Detectors that a fragment's suffix names.
_SUFFIXES = ('two_stage', 'anchor', 'anchor_free', 'atss', 'encoder', 'fcos', 'gfl', 'yolox', 'paraphraser')

#: Fragments whose weights have another origin than those of their method's first fragment.
_OTHER_WEIGHTS = {'chen_two_stage': 'published', 'dkd_two_stage': 'published', 'kd_two_stage': 'published'}

#: Fragments that ask for something else than their method's first fragment.
_ROIS = 'second stages with the same classes'
_OTHER_NEEDS = {
    **{f'{name}_two_stage': _ROIS for name in ('dist', 'dkd', 'kd')},
    'chen_two_stage': f'{_ROIS}, and RPNs with the same anchors',
    'ctkd_two_stage': f'{_ROIS}; no weight decay on the temperature',
    'fgd_encoder': 'DETR-type encoders',
    'logit_std_two_stage': f'{_ROIS}, three at least',
    'ofa_two_stage': f'{_ROIS}; a classifier on each trained stage of the backbone',
}


def find_method(name: str) -> Method:
    """The method of a fragment: ``fgd_two_stage`` → FGD, with what holds for that fragment.

    Args:
        name: A fragment's name without ``.py``, or a method's name.

    Raises:
        ConfigError: The catalogue has no such method.
    """
    method = METHODS.get(name)
    for suffix in _SUFFIXES:
        if method is None and name.endswith(f'_{suffix}'):
            method = METHODS.get(name.removesuffix(f'_{suffix}'))
    if method is None:
        raise ConfigError(f"method: found '{name}', expected a method of the catalogue.{did_you_mean(name, METHODS)}")
    return replace(
        method,
        needs=_OTHER_NEEDS.get(name, method.needs),
        weights_are=_OTHER_WEIGHTS.get(name, method.weights_are),
    )


def method_or_new(name: str, fragment: str | None = None) -> Method:
    """As :func:`find_method`; a method that the catalogue lacks keeps its name and is of the family ``other``.

    Args:
        name: What the setting calls it. Names joined by ``+`` are several methods at once: 'PKD + CrossKD'.
        fragment: Its fragment. Where the catalogue has that under another name, the method is the fragment's, and both
            names are in its title: ``fgd_strong`` made of ``fgd`` is 'FGD (fgd_strong)'.
    """
    by_name = _find(name)
    by_fragment = _find(fragment) if fragment else None
    if by_fragment is None:
        return by_name or Method(name, name, 'other', '', 'ours', '')
    if by_name is not None and by_name.name == by_fragment.name:
        return by_fragment
    return replace(by_fragment, name=name, title=f'{by_fragment.title} ({name})')


def parts_of(name: str) -> list[str]:
    """The names that a name joins by ``+``; a name of one method, or a path, is its only part."""
    return [name] if name.endswith('.py') else name.split('+')


def _find(name: str) -> Method | None:
    try:
        parts = [find_method(each) for each in parts_of(name)]
    except ConfigError:
        return None
    return parts[0] if len(parts) == 1 else _together(parts)


def _together(parts: list[Method]) -> Method:
    """Several methods as one. Its weights are published if each part's are, if never together."""
    families = {part.family for part in parts}
    if len(families) > 1:
        families = {'mixed'} if families <= {'logits', 'boxes', 'mixed'} else {'several'}
    return Method(
        '+'.join(part.name for part in parts),
        ' + '.join(part.title for part in parts),
        families.pop(),
        '; '.join(dict.fromkeys(part.needs for part in parts if part.needs)),
        'published' if all(part.weights_are == 'published' for part in parts) else 'ours',
        '; '.join(dict.fromkeys(part.source for part in parts if part.source)),
        scores=any(part.on_scores for part in parts),
    )
