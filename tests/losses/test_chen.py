import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import MultiBoxKDLoss, SoftTargetLoss, TeacherBoundedL2Loss

TOL = {torch.float64: 1e-6, torch.float32: 1e-4}
WEIGHTS = dict(soft=0.3, conf=0.7, l2=0.5, loc=1.0)


# ----------------------------------------------------------------------------------------------- soft targets


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'dense.', 'extreme.'])
def test_soft_reference(reference, close, case, dtype):
    ref = reference('kd')
    tol = 1e-9 if dtype == torch.float64 else 1e-4
    loss = SoftTargetLoss(T=ref.hparams['dense_T' if case == 'dense.' else 'T'], background=None)
    student, teacher = ref(f'{case}student', dtype).requires_grad_(), ref(f'{case}teacher', dtype)
    rows = [x.movedim(1, -1).reshape(-1, x.shape[1]) for x in (student, teacher)]
    value = loss(*rows)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')


def slow_soft(student, teacher, labels, label_weights, avg_factor, T, sigmoid, pos, neg, background, form):
    """Number by number, from plain exponentials."""
    total, foreground = 0.0, 0
    columns = student.shape[1]
    outside = {'last': columns - 1, 'first': 0, None: None}[background]
    for i in range(student.shape[0]):
        label = None if labels is None else int(labels[i])
        weight = 1.0 if label_weights is None else float(label_weights[i])
        if label == -1 or weight == 0:
            continue
        if sigmoid:
            is_object = label is None or 0 <= label < columns
        else:
            is_object = label is not None and label != outside
        foreground += is_object
        s, t = student[i].tolist(), teacher[i].tolist()
        if sigmoid:
            pairs = []
            for c in range(columns):
                a, b = 1 / (1 + math.exp(-t[c] / T)), 1 / (1 + math.exp(-s[c] / T))
                pairs += [(a, b), (1 - a, 1 - b)]
            factors = [pos if is_object else neg] * len(pairs)
        else:
            sum_t, sum_s = (sum(math.exp(z / T) for z in row) for row in (t, s))
            pairs = [(math.exp(t[c] / T) / sum_t, math.exp(s[c] / T) / sum_s) for c in range(columns)]
            factors = [neg if c == outside else pos for c in range(columns)]
        for (p, q), factor in zip(pairs, factors):
            total += weight * factor * (p * math.log(p / q) if form == 'kl' else -p * math.log(q))
    number = avg_factor if avg_factor is not None else (student.shape[0] if labels is None else foreground)
    return T**2 * total / max(number, 1)


SOFT = list(itertools.product(['last', 'first', None, 'sigmoid'], ['kl', 'ce'], ['none', 'labels', 'weights', 'avg']))


@pytest.mark.parametrize('head, form, given', SOFT)
def test_soft_equals_slow_formula(head, form, given):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(30, 4, generator=generator, dtype=torch.float64) * 3
    teacher = torch.randn(30, 4, generator=generator, dtype=torch.float64) * 3
    top = 5 if head == 'sigmoid' else 4
    labels = torch.randint(-1, top, (30,), generator=generator)
    label_weights = torch.tensor([0.0, 1.0, 1.0, 0.5, 2.0]).repeat(6).double()
    inputs = dict(
        labels=None if given == 'none' else labels,
        label_weights=label_weights if given in ('weights', 'avg') else None,
        avg_factor=7.5 if given == 'avg' else None,
    )
    background = None if head == 'sigmoid' else head
    loss = SoftTargetLoss(2.0, head == 'sigmoid', 1.1, 1.7, background, form)
    expected = slow_soft(
        student, teacher, **inputs, T=2.0, sigmoid=head == 'sigmoid', pos=1.1, neg=1.7, background=background, form=form
    )
    assert math.isclose(loss(student, teacher, **inputs).item(), expected, rel_tol=1e-12)


def test_soft_sigmoid_is_a_soft_max_of_two():
    """The binary form of one class is the soft-max form of the logits (z, 0)."""
    torch.manual_seed(1)
    student, teacher = torch.randn(9, 1, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    two = [torch.cat((x, torch.zeros_like(x)), 1) for x in (student, teacher)]
    for form in ('kl', 'ce'):
        one = SoftTargetLoss(3.0, use_sigmoid=True, form=form)(student, teacher)
        torch.testing.assert_close(one, SoftTargetLoss(3.0, background=None, form=form)(*two), rtol=1e-12, atol=0)


@pytest.mark.parametrize('sigmoid', [True, False])
def test_soft_zero_at_equality_and_gradients(sigmoid):
    torch.manual_seed(2)
    student = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.tensor([0, 3, 4 if sigmoid else 3, -1, 2, 1])
    kl, ce = (SoftTargetLoss(2.0, sigmoid, form=form) for form in ('kl', 'ce'))
    assert kl(student, student.detach().clone(), labels).abs() < 1e-15 and ce(student, student.detach(), labels) > 0.1
    assert torch.autograd.gradcheck(lambda s: kl(s, teacher, labels), (student,))
    first, second = (torch.autograd.grad(loss(student, teacher, labels), student)[0] for loss in (kl, ce))
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-14)
    assert not first[3].any() and first[[0, 1, 2, 4, 5]].any(1).all()  # the row with label -1 is left out


@pytest.mark.parametrize('sigmoid', [True, False])
@pytest.mark.parametrize('scale', [1e2, 1e5])
def test_soft_huge_logits_stay_finite(sigmoid, scale):
    student = (scale * torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])).requires_grad_()
    teacher = scale * torch.tensor([[-1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    for form in ('kl', 'ce'):
        value = SoftTargetLoss(1.0, sigmoid, form=form)(student, teacher, torch.tensor([0, 1]))
        (gradient,) = torch.autograd.grad(value, student)
        assert torch.isfinite(value) and value > scale / 2 and torch.isfinite(gradient).all()


def test_soft_without_foreground_or_rows():
    student, teacher = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4)
    only_background = torch.full((5,), 3)
    loss = SoftTargetLoss(neg_weight=1.0)
    torch.testing.assert_close(loss(student, teacher, only_background), 5 * loss(student, teacher))  # N = 1, and N = 5
    for value in (
        loss(student, teacher, only_background, torch.zeros(5)),
        loss(student, teacher, torch.full((5,), -1)),
        loss(student[:0], teacher[:0], only_background[:0]),
        loss(student[:0], teacher[:0]),
    ):
        assert value == 0 and not torch.autograd.grad(value, student)[0].any()


# ------------------------------------------------------------------------------------------ teacher-bounded L2


def slow_bounded(student, teacher, target, positive, margin):
    total = 0.0
    for s, t, y, p in zip(student.tolist(), teacher.tolist(), target.tolist(), positive.tolist()):
        d_s, d_t = (sum((a - b) ** 2 for a, b in zip(x, y)) for x in (s, t))
        total += d_s if p and d_s + margin > d_t else 0.0
    return total / max(sum(positive.tolist()), 1)


@pytest.mark.parametrize('margin', [0.0, 1.5])
@pytest.mark.parametrize('weights', ['none', 'rows', 'columns'])
def test_bounded_equals_slow_formula(margin, weights):
    generator = torch.Generator().manual_seed(3)
    student, teacher, target = (torch.randn(40, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    positive = torch.rand(40, generator=generator) < 0.4
    given = dict(none=None, rows=2.0 * positive, columns=(0.5 * positive)[:, None].expand(40, 4))[weights]
    counted = torch.ones(40, dtype=torch.bool) if weights == 'none' else positive
    loss = TeacherBoundedL2Loss(reg_m=margin, loss_weight=2.0)
    expected = slow_bounded(student, teacher, target, counted, margin)
    assert math.isclose(loss(student, teacher, target, given).item(), 2 * expected, rel_tol=1e-12)
    scaled = loss(student, teacher, target, given, avg_factor=torch.tensor(80.0)).item()
    assert math.isclose(scaled, 2 * expected * int(counted.sum()) / 80, rel_tol=1e-12)


def test_bounded_gate():
    """Worse than the teacher: pulled. Equal or better: left alone, unless within the margin."""
    target = torch.zeros(3, 4)
    teacher = torch.tensor([[1.0, 0, 0, 0]] * 3)
    student = torch.tensor([[2.0, 0, 0, 0], [1.0, 0, 0, 0], [0.5, 0, 0, 0]], requires_grad=True)
    for margin, expected in ((0.0, [4.0, 0, 0]), (0.5, [4.0, 2.0, 0]), (1.0, [4.0, 2.0, 1.0])):
        value = TeacherBoundedL2Loss(reg_m=margin)(student, teacher, target)
        assert torch.autograd.grad(3 * value, student)[0][:, 0].tolist() == expected  # the gradient 2 d


def test_bounded_without_positives():
    student = torch.randn(5, 4, requires_grad=True)
    target = torch.full((5, 4), float('inf'))  # the encoder's output for rows without a box may be anything
    for rows in (5, 0):
        value = TeacherBoundedL2Loss()(student[:rows], torch.zeros(rows, 4), target[:rows], torch.zeros(rows, 4))
        assert value == 0 and value.requires_grad
        assert torch.equal(torch.autograd.grad(value, student)[0], torch.zeros(5, 4))


# ---------------------------------------------------------------------------------------------------- MultiBox


def multibox_inputs(ref, case='', dtype=torch.float64):
    student = {key: ref(f'{case}student.{key}', dtype).requires_grad_() for key in ('loc', 'conf')}
    teacher = {key: ref(f'{case}teacher.{key}', dtype) for key in ('loc', 'conf')}
    return student, teacher, ref(f'{case}loc_t', dtype), ref(f'{case}conf_t')


def multibox(ref, **kwargs):
    keys = ('neg_w', 'pos_w', 'Temp', 'reg_m', 'negpos_ratio', 'negatives_for_hard')
    return MultiBoxKDLoss(**{**{key: ref.hparams[key] for key in keys}, 'background': 'first', **kwargs})


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'allbg.'])
@pytest.mark.parametrize('background', ['first', 'last'])
def test_multibox_reference(reference, close, background, case, dtype):
    ref, tol = reference('ssd_kd'), TOL[dtype]
    student, teacher, loc_t, conf_t = multibox_inputs(ref, case, dtype)
    inputs = (student, teacher, loc_t, conf_t)
    if background == 'last':  # the same numbers with the background column moved to the end
        move = lambda heads: dict(loc=heads['loc'], conf=heads['conf'].roll(-1, 2))  # noqa: E731
        inputs = (move(student), move(teacher), loc_t, (conf_t - 1) % ref.hparams['num_classes'])
    loss = multibox(ref, background=background)
    parts = loss(*inputs)
    total = sum(parts.values())
    total.backward()
    assert set(parts) == set(WEIGHTS)
    for name, weight in WEIGHTS.items():
        close(parts[name], weight * ref(f'{case}loss.{name}'), tol, name)
    close(total, ref(f'{case}loss'), tol, 'loss')
    for key in ('loc', 'conf'):
        close(student[key].grad, ref(f'{case}grad_student.{key}'), tol, f'grad_student.{key}')
    entropy = F.cross_entropy(student['conf'].flatten(0, 1), conf_t.flatten(), reduction='none').view(conf_t.shape)
    _, selected = loss.mine(entropy, inputs[3], ref.hparams['num_classes'])
    assert torch.equal(selected, ref(f'{case}selected'))


@pytest.mark.parametrize('case', ['', 'allbg.'])
def test_multibox_other_forms(reference, close, case):
    ref = reference('ssd_kd')
    student, teacher, loc_t, conf_t = multibox_inputs(ref, case)
    plain = multibox(ref, neg_w=1.0, soft_weight=1.0)(student, teacher, loc_t, conf_t)['soft']
    close(plain, ref(f'{case}loss.soft_plain_kl'), 1e-6, 'plain KL')
    rows = ref(f'{case}selected').flatten()
    loss = SoftTargetLoss(ref.hparams['Temp'], background='first', form='ce')
    heads = (x['conf'].flatten(0, 1) for x in (student, teacher))
    found = loss(*heads, labels=conf_t.flatten(), label_weights=rows.double())
    close(found, ref(f'{case}loss.soft_cross_entropy_form'), 1e-6, 'cross entropy')


def test_multibox_is_made_of_the_single_losses(reference):
    """On the same rows, the parts are those of the losses that stand alone."""
    ref = reference('ssd_kd')
    student, teacher, loc_t, conf_t = multibox_inputs(ref)
    parts = multibox(ref, eps=0.0)(student, teacher, loc_t, conf_t)
    soft = SoftTargetLoss(ref.hparams['Temp'], background='first', loss_weight=0.3)
    heads = [[x[key].flatten(0, 1) for x in (student, teacher)] for key in ('conf', 'loc')]
    alone = soft(*heads[0], conf_t.flatten(), ref('selected').flatten().double())
    torch.testing.assert_close(alone, parts['soft'], rtol=1e-12, atol=0)
    bounded = TeacherBoundedL2Loss(ref.hparams['reg_m'], loss_weight=0.5)
    alone = bounded(*heads[1], loc_t.flatten(0, 1), (conf_t > 0).flatten().double())
    torch.testing.assert_close(alone, parts['l2'], rtol=1e-12, atol=0)


def test_multibox_ignored_priors_take_no_part(reference):
    """Ignored priors change nothing, whatever they hold: the loss is that of the priors that remain."""
    ref = reference('ssd_kd')
    student, teacher, loc_t, conf_t = multibox_inputs(ref)
    keep = torch.arange(conf_t.shape[1]) % 3 != 0
    loss = multibox(ref)
    short = lambda heads: {key: value[:, keep] for key, value in heads.items()}  # noqa: E731
    expected = loss(short(student), short(teacher), loc_t[:, keep], conf_t[:, keep])
    labels = torch.where(keep, conf_t, -1)
    found = loss(student, teacher, loc_t.masked_fill(~keep[:, None], float('inf')), labels, keep.expand_as(conf_t))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=0)
    gradient = torch.autograd.grad(sum(found.values()), student['conf'])[0]
    assert torch.isfinite(gradient).all() and not gradient[:, ~keep].any() and gradient[:, keep].any()


def test_multibox_gradcheck():
    torch.manual_seed(4)
    loc, conf = (torch.randn(2, 8, n, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    teacher = dict(loc=torch.randn(2, 8, 4).double(), conf=torch.randn(2, 8, 3).double())
    loc_t, conf_t = torch.randn(2, 8, 4).double(), torch.tensor([[2, 2, 0, 2, 1, 2, 2, 2], [2] * 8])
    loss = MultiBoxKDLoss(Temp=2.0, negpos_ratio=1, negatives_for_hard=3)

    def total(loc, conf):
        return sum(loss(dict(loc=loc, conf=conf), teacher, loc_t, conf_t).values())

    assert torch.autograd.gradcheck(total, (loc, conf))


@pytest.mark.parametrize('ratio, kept', [(3, 6), (1, 2), (100, 7)])
def test_multibox_mining_takes_the_hardest(ratio, kept):
    """At most P - 1 priors, hardest first, of the background only."""
    entropy = torch.tensor([[3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0], [3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0]])
    conf_t = torch.tensor([[2, 2, 2, 0, 2, 1, 2, 2], [2] * 8])
    positive, selected = MultiBoxKDLoss(negpos_ratio=ratio, negatives_for_hard=ratio * 2).mine(entropy, conf_t, 3)
    assert positive.sum(1).tolist() == [2, 0]
    hardest = [4, 6, 7, 2, 0, 5, 3, 1]
    assert selected[1].nonzero().flatten().tolist() == sorted(hardest[:kept])
    negatives = [i for i in hardest if i not in (3, 5)][:kept]
    assert selected[0].nonzero().flatten().tolist() == sorted([3, 5, *negatives])


# ------------------------------------------------------------------------------------------------------ errors


def test_errors():
    rows = torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r'equal shape \(N, K\).*student \(5, 4\), teacher \(5, 3\)'):
        SoftTargetLoss()(rows, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r'as many rows.*labels \(4,\)'):
        SoftTargetLoss()(rows, rows, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r'bbox_targets must be \(5, 4\), found \(5, 3\)'):
        TeacherBoundedL2Loss()(rows, rows, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="background='lst'.*Nearest: 'last'"):
        SoftTargetLoss(background='lst')
    with pytest.raises(ValueError, match="form='mse'"):
        SoftTargetLoss(form='mse')
    with pytest.raises(ValueError, match='T=0'):
        SoftTargetLoss(T=0)
    heads = dict(loc=torch.zeros(1, 5, 4), conf=torch.zeros(1, 5, 3))
    labels = torch.zeros(1, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"student must be a dict with 'loc' and 'conf', found \['loc'\]"):
        MultiBoxKDLoss()(dict(loc=heads['loc']), heads, heads['loc'], labels)
    with pytest.raises(ValueError, match=r'teacher.conf \(1, 5, 4\)'):
        MultiBoxKDLoss()(heads, dict(heads, conf=torch.zeros(1, 5, 4)), heads['loc'], labels)
    with pytest.raises(ValueError, match='background=None'):
        MultiBoxKDLoss(background=None)
