"""Any two methods, and any three, work in one config: forty draws with a detector each, stepped."""

import copy
import random

import pytest
import torch
from mmengine.config import ConfigDict
from steps import CONFIGS, fragment
from tiny_families import mask_rcnn, rtmdet, yolox
from tiny_models import atss, batch, cascade, distiller, faster, fcos, gfl, pooled_faster, retina, ssd, total

#: Fragments that read the neck or the boxes and fit every detector of three levels.
ANYWHERE = [
    'at', 'cc', 'crd', 'cwd', 'cwd_norm', 'fgd', 'fgd_anchor_free', 'fgd_yolox', 'fitnet', 'fsp', 'ft', 'ickd', 'mgd',
    'nst', 'pkd', 'pkt', 'reviewkd', 'rkd', 'sp', 'vid',
]  # fmt: skip
BACKBONE = ['ab', 'ofd']
DENSE = ['ctkd', 'dist', 'dkd', 'kd', 'logit_std', 'ofa', 'qfl']
TWO_STAGE = [
    'ctkd_two_stage', 'dist_two_stage', 'dkd_two_stage', 'fgd_two_stage', 'kd_two_stage', 'logit_std_two_stage',
    'mgd_two_stage', 'ofa_two_stage', 'pkd_two_stage',
]  # fmt: skip
#: Detector → what it can take.
FAMILIES = {
    retina: [*ANYWHERE, *BACKBONE, *DENSE, 'fbkd', 'chen_anchor', 'crosskd'],
    fcos: [*ANYWHERE, *BACKBONE, *DENSE, 'crosskd_fcos'],
    atss: [*ANYWHERE, *BACKBONE, *DENSE, 'crosskd_atss'],
    gfl: [*ANYWHERE, *BACKBONE, *DENSE, 'ld', 'crosskd_gfl'],
    faster: [*ANYWHERE, *BACKBONE, *TWO_STAGE, 'fbkd_two_stage', 'chen_two_stage'],
    cascade: [*ANYWHERE, *BACKBONE],
    pooled_faster: [*ANYWHERE, *BACKBONE, 'sdd', 'kd_two_stage', 'dkd_two_stage'],
    mask_rcnn: [*ANYWHERE, *BACKBONE, 'kd_two_stage', 'dist_two_stage'],
    ssd: ['cwd', 'fgd', 'fitnet', 'at', 'ssdkd', 'nst'],
    yolox: ANYWHERE,
    rtmdet: [*ANYWHERE, 'kd', 'qfl'],
}
#: DETR's fragments have detectors of their own; the paraphraser's is no term of a student.
ELSEWHERE = ['fgd_encoder', 'kd_queries', 'ft_paraphraser']


def draws():
    """Every fragment at least once, then at random: twenty pairs, twenty triples."""
    generator = random.Random(3)
    waiting = sorted({name for names in FAMILIES.values() for name in names})
    generator.shuffle(waiting)
    found = []
    for number in range(40):
        first = waiting.pop() if waiting else None
        family = generator.choice([f for f in FAMILIES if first is None or first in FAMILIES[f]])
        names = [first] if first else []
        rest = [name for name in FAMILIES[family] if name not in names]
        generator.shuffle(rest)
        waited = [name for name in rest if name in waiting]
        names += [*waited, *[name for name in rest if name not in waited]][: 2 + number % 2 - len(names)]
        waiting = [name for name in waiting if name not in names]
        found.append((family, names))
    return found


DRAWS = draws()


def fitted(terms, model):
    """The fragment as a detector of three levels takes it: fewer levels, shorter towers."""
    levels = 2 if 'roi_head' in model else 3
    for term in terms.values():
        for side in ('student', 'teacher'):
            for count in (4, 5):
                if term[side] == f'neck[0:{count}]':
                    term[side] = f'neck[0:{levels}]'
        if term.get('adapter', {}).get('type') == 'kd_det.CrossHead':
            term['adapter']['idx'] = 1
        if term['loss']['type'] == 'kd_det.CRDLoss':
            term['loss'].update(n_data=20, nce_k=8)
        term.pop('schedule', None)
    return {name: term for name, term in terms.items() if term['student'] not in ('neck[2]', 'neck[3]')}


def test_every_fragment_is_drawn():
    known = {path.stem for path in (CONFIGS / '_base_' / 'distill').glob('*.py')}
    drawn = {name for _, names in DRAWS for name in names}
    assert drawn == known - set(ELSEWHERE)
    assert sorted(len(names) for _, names in DRAWS) == [2] * 20 + [3] * 20


@pytest.mark.parametrize('family, names', DRAWS, ids=['-'.join([family.__name__, *names]) for family, names in DRAWS])
def test_methods_combine(family, names):
    student, teacher = ConfigDict(family()), family(base=16)
    if 'bbox_head' in student and 'crosskd' in ' '.join(names):
        for cfg in (student, teacher):
            cfg['bbox_head']['stacked_convs'] = 2
    terms = {}
    for name in names:
        for term, cfg in fitted(fragment(name), student).items():
            terms[f'{name}_{term}'] = cfg
    assert all(any(term.startswith(name) for term in terms) for name in names)
    model = distiller(student.to_dict(), teacher, terms)
    images, samples = batch(model)
    optimiser = torch.optim.SGD(model.parameters(), 1e-4)
    for _ in range(2):
        optimiser.zero_grad()
        losses = model.loss(images, copy.deepcopy(samples))
        assert all(any(k.startswith(f'loss_{term}') for k in losses) for term in terms)
        assert all(torch.isfinite(torch.as_tensor(total({k: v}))) for k, v in losses.items())
        total(losses).backward()
        missing = [k for k, p in model.distill.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, missing
        assert all(p.grad is None for p in model.teacher.model.parameters())
        optimiser.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
