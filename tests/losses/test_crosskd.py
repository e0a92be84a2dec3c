import math

import pytest
import torch

from kd_det.errors import ConfigError
from kd_det.losses.crosskd import CrossKDLoss, QFLKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('crosskd_qfl'), TOL[dtype]
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    value = QFLKDLoss(ref.hparams['beta'])(student, teacher, ref('weight', dtype), ref.hparams['avg_factor'])
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_equals_slow_formula(beta):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weights = torch.rand(2, 4, 5, dtype=torch.float64)
    total = number = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                p, q = ([1 / (1 + math.exp(-v)) for v in z[b, :, y, x].tolist()] for z in (student, teacher))
                terms = (abs(i - j) ** beta * (-j * math.log(i) - (1 - j) * math.log(1 - i)) for i, j in zip(p, q))
                total += weights[b, y, x].item() * sum(terms)
                number += weights[b, y, x].item() * max(q)
    loss = QFLKDLoss(beta, loss_weight=0.4)
    assert abs(loss(student, teacher, weights).item() - 0.4 * total / number) < 1e-12
    assert abs(loss(student, teacher, weights, 3.0).item() - 0.4 * total / 3) < 1e-12


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 3, dtype=torch.float64)
    for beta in (0.0, 1.0, 2.0):
        loss = QFLKDLoss(beta)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher), (student,))
        value = loss(student, student.detach())
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.abs().max() < 1e-14 and (value == 0) == (beta > 0)


def test_huge_logits_and_no_rows():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    value = QFLKDLoss()(student, -student.detach())
    value.backward()
    assert value.item() == 2e4 and torch.isfinite(student.grad).all()
    empty = torch.zeros(0, 3, requires_grad=True)
    value = QFLKDLoss()(empty, empty.detach())
    value.backward()
    assert value == 0 and empty.grad.shape == (0, 3)


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(3, 5\)'):
        QFLKDLoss()(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r'label_weights must have shape \(3,\)'):
        QFLKDLoss()(torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match='beta=0.5'):
        QFLKDLoss(0.5)


def boxes_iou(a, b):
    """IoU and generalised IoU of two boxes, from their areas."""
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1)]
    hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    union = sum(area) - sides[0] * sides[1]
    iou = sides[0] * sides[1] / union
    return iou, iou - (hull[0] * hull[1] - union) / (hull[0] * hull[1])


def heads(n=6, classes=3, bins=5, seed=0):
    """What two heads predict for n rows, in float64; boxes overlap."""
    torch.manual_seed(seed)
    pair = []
    for _ in range(2):
        corner = torch.rand(n, 2, dtype=torch.float64)
        boxes = torch.cat((corner, corner + 2 + torch.rand(n, 2, dtype=torch.float64)), 1)
        rows = dict(cls=(n, classes), dist=(4 * n, bins), centerness=(n,))
        pair.append(dict({k: torch.randn(*v, dtype=torch.float64) for k, v in rows.items()}, boxes=boxes))
    return pair


@pytest.mark.parametrize('kind', ['giou', 'iou'])
@pytest.mark.parametrize('normalize', ['positives', 'scores'])
def test_whole_head_equals_slow_formula(kind, normalize):
    student, teacher = heads()
    labels, weights = torch.tensor([0, 3, 2, 1, 3, -1]), torch.tensor([1, 1, 0, 1, 0.5, 0], dtype=torch.float64)
    number, score_sum = 2.5, 3.5
    loss = CrossKDLoss(
        loss_cls=dict(type='kd_det.QFLKDLoss', beta=1.0, loss_weight=0.4),
        loss_reg=dict(type='mmdet.GIoULoss' if kind == 'giou' else 'mmdet.IoULoss', loss_weight=0.75),
        loss_dist=dict(type='kd_det.KDLoss', T=1.0, loss_weight=4.0),
        centerness_weight=0.5,
        normalize=normalize,
    )
    scores = teacher['cls'].sigmoid().max(1).values * (weights > 0)
    found = loss(student, teacher, labels, weights, scores, number, score_sum)
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = dict.fromkeys(('cls', 'reg', 'dist', 'centerness'), 0.0)
    divisor = number if normalize == 'positives' else score_sum
    for i in range(6):
        for s, t in zip(student['cls'][i].tolist(), teacher['cls'][i].tolist()):
            p, q = sigmoid(s), sigmoid(t)
            entropy = -q * math.log(p) - (1 - q) * math.log(1 - p)
            expected['cls'] += 0.4 * weights[i].item() * abs(p - q) * entropy / number
        score = max(map(sigmoid, teacher['cls'][i].tolist())) if weights[i] > 0 else 0.0
        iou, giou = boxes_iou(student['boxes'][i].tolist(), teacher['boxes'][i].tolist())
        expected['reg'] += 0.75 * score * (1 - giou if kind == 'giou' else -math.log(iou)) / divisor
        for side in range(4):
            d_s, d_t = ([math.exp(v) for v in rows['dist'][4 * i + side].tolist()] for rows in (student, teacher))
            d_s, d_t = ([v / sum(d) for v in d] for d in (d_s, d_t))
            kl = sum(b * math.log(b / a) for a, b in zip(d_s, d_t))
            expected['dist'] += 4.0 * score * kl / 4 / divisor
        if labels[i] in (0, 1, 2):
            p, q = sigmoid(student['centerness'][i].item()), sigmoid(teacher['centerness'][i].item())
            expected['centerness'] += 0.5 * (-q * math.log(p) - (1 - q) * math.log(1 - p)) / number
    assert set(found) == set(expected)
    for part, value in expected.items():
        assert value > 0 and abs(found[part].item() - value) < 1e-6 * value, part  # mmdet's IoU has an eps of 1e-6
    # What is not given follows from what is.
    alone = loss(student, teacher, labels, weights)
    again = loss(student, teacher, labels, weights, scores, float((weights > 0).sum()), scores.sum())
    assert all(torch.equal(alone[part], again[part]) for part in expected)


def test_whole_head_is_zero_at_equality_and_follows_the_switches():
    student, _ = heads()
    same = {k: v.clone() for k, v in student.items()}
    student = {k: v.requires_grad_() for k, v in student.items()}
    labels = torch.tensor([0, 3, 2, 1, 3, -1])
    parts = CrossKDLoss(loss_dist=dict(type='kd_det.KDLoss', T=1.0), centerness_weight=1.0)(student, same, labels)
    assert all(abs(parts[name].item()) < 1e-6 for name in ('cls', 'reg', 'dist'))
    assert parts['centerness'] > 0  # the teacher's own entropy
    (gradient,) = torch.autograd.grad(parts['centerness'], student['centerness'])
    assert gradient.abs().max() < 1e-12
    assert set(CrossKDLoss()(student, same)) == {'cls', 'reg'}
    assert set(CrossKDLoss(loss_cls=None)(student, same)) == {'reg'}


def test_whole_head_gradcheck():
    student, teacher = heads(4)
    loss = CrossKDLoss(loss_dist=dict(type='kd_det.KDLoss', T=1.0), centerness_weight=1.0, normalize='scores')
    names = sorted(student)

    def of(*values):
        return sum(loss(dict(zip(names, values)), teacher, torch.tensor([0, 3, 2, 1])).values())

    assert torch.autograd.gradcheck(of, tuple(student[name].requires_grad_() for name in names))


def test_whole_head_without_rows_or_positives():
    student, teacher = ({k: v[:0].requires_grad_() for k, v in rows.items()} for rows in heads())
    loss = CrossKDLoss(loss_dist=dict(type='kd_det.KDLoss', T=1.0), centerness_weight=1.0)
    empty = loss(student, teacher, torch.zeros(0, dtype=torch.long))
    assert set(empty) == {'cls', 'reg', 'dist', 'centerness'} and not any(empty.values())
    student, teacher = heads()
    parts = loss(student, teacher, torch.full((6,), 3), torch.zeros(6, dtype=torch.float64))
    assert all(value == 0 for value in parts.values())


def test_whole_head_errors():
    student, teacher = heads()
    with pytest.raises(ConfigError, match="normalize='score'.*'scores'"):
        CrossKDLoss(normalize='score')
    with pytest.raises(ValueError, match=r"'cls' of shape \(N, K\).*\(6, 3\) and \(6, 2\)"):
        CrossKDLoss()(student, dict(teacher, cls=teacher['cls'][:, :2]))
    with pytest.raises(ValueError, match=r"'boxes' of shape \(6, 4\).*\(5, 4\)"):
        CrossKDLoss()(dict(student, boxes=student['boxes'][:5]), teacher)
    with pytest.raises(ValueError, match=r"'dist' of shape \(24, n \+ 1\).*NoneType"):
        CrossKDLoss(loss_dist=dict(type='kd_det.KDLoss'))({k: v for k, v in student.items() if k != 'dist'}, teacher)
    with pytest.raises(ValueError, match='centerness_weight needs labels'):
        CrossKDLoss(centerness_weight=1.0)(student, teacher)
    with pytest.raises(ValueError, match=r'label_weights must have shape \(6,\)'):
        CrossKDLoss()(student, teacher, label_weights=torch.ones(5))
