import pytest
import torch

from kd_det.losses.ft import FTLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def their_name(ours):
    """encoder.conv0.weight -> conv0.weight"""
    return ours.removeprefix('encoder.').removeprefix('decoder.')


def make(ref, dtype, **options):
    loss = FTLoss(6, 8, ref.hparams['k'], **options)
    for part, module in loss.named_children():
        if part == 'paraphraser' or not options.get('translator_bn'):
            for name, parameter in module.named_parameters():
                parameter.data.copy_(ref(f'param.{part}.{their_name(name)}'))
    return loss.to(dtype), ref('student', dtype).requires_grad_(), ref('teacher', dtype)


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('ft'), TOL[dtype]
    loss, student, teacher = make(ref, dtype)
    close(loss.translator(student), ref('factor_student'), tol, 'factor_student')
    close(loss.paraphraser.encoder(teacher), ref('factor_teacher'), tol, 'factor_teacher')
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for name, parameter in loss.translator.named_parameters():
        close(parameter.grad, ref(f'grad_param.translator.{name}'), tol, name)
    assert all(p.grad is None and not p.requires_grad for p in loss.paraphraser.parameters())


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_paraphraser_stage(reference, close, dtype):
    ref, tol = reference('ft'), TOL[dtype]
    loss, student, teacher = make(ref, dtype, stage='paraphraser')
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss.reconstruction_l1'), tol, 'reconstruction_l1')
    for name, parameter in loss.paraphraser.named_parameters():
        close(parameter.grad, ref(f'grad_param.paraphraser.reconstruction_l1.{their_name(name)}'), tol, name)
    assert not student.grad.any() and [name for name, _ in loss.named_children()] == ['paraphraser']
    loss, student, teacher = make(ref, dtype, stage='paraphraser', reconstruction='mse')
    close(loss(student, teacher), ref('loss.reconstruction_mse'), tol, 'reconstruction_mse')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_attention_form(reference, close, dtype):
    ref, tol = reference('ft'), TOL[dtype]
    loss, student, teacher = make(ref, dtype, form='attention')
    value = loss(student, teacher)
    value.backward()
    close(value, ref('repdistiller.loss'), tol, 'loss')
    close(student.grad, ref('repdistiller.grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_attention_form_with_batch_norm(reference, close, dtype):
    ref, tol = reference('ft'), TOL[dtype]
    loss, student, teacher = make(ref, dtype, form='attention', translator_bn=True)
    for name, parameter in loss.translator.named_parameters():
        layer, what = name.split('.')
        index = 3 * int(layer[-1]) + layer.startswith('bn')
        parameter.data.copy_(ref(f'repdistiller.param.translator_bn.encoder.{index}.{what}'))
    value = loss(student, teacher)
    value.backward()
    close(value, ref('repdistiller.loss_bn_translator'), tol, 'loss')
    close(student.grad, ref('repdistiller.grad_student_bn_translator'), tol, 'grad_student')


def test_the_stages_share_a_checkpoint():
    torch.manual_seed(0)
    first, second = FTLoss(3, 4, stage='paraphraser'), FTLoss(3, 4)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 4, 5, 6)
    optimizer = torch.optim.Adam([p for p in first.parameters() if p.requires_grad], 0.01)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        values.append(first(student, teacher))
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.95 * values[0]
    missing, unexpected = second.load_state_dict(first.state_dict(), strict=False)
    assert not unexpected and all(name.startswith('translator.') for name in missing)
    assert torch.equal(second.paraphraser(teacher), first.paraphraser(teacher))


def test_plain_formula_and_pooled_factors():
    torch.manual_seed(1)
    loss, f_s, f_t = FTLoss(3, 4, loss_weight=2.0).double(), torch.randn(2, 2, 4, 6).double(), None
    f_t = torch.randn(2, 2, 2, 3).double()
    pooled, total = torch.nn.functional.avg_pool2d(f_s, 2), 0.0
    for a, b in zip(pooled, f_t):
        a, b = a / (a**2).sum() ** 0.5, b / (b**2).sum() ** 0.5
        total = total + (a - b).abs().sum()
    torch.testing.assert_close(loss.distance(f_s, f_t), total / f_t.numel())
    maps = torch.randn(2, 3, 4, 6).double(), torch.randn(2, 4, 2, 3).double()
    expected = 2 * loss.distance(loss.translator(maps[0]), loss.paraphraser.encoder(maps[1]))
    torch.testing.assert_close(loss(*maps), expected)


def test_gradcheck_zero_at_equality_and_dead_factor():
    torch.manual_seed(2)
    for form in ('paper', 'attention'):
        loss = FTLoss(2, 4, form=form).double()
        student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
        teacher = torch.randn(2, 4, 3, 4, dtype=torch.float64)
        assert torch.autograd.gradcheck(loss, (student, teacher))
        assert loss.distance(student, 2 * student) < 1e-15
        dead = torch.zeros(1, 2, 3, 4, requires_grad=True)
        loss.distance(dead, torch.randn(1, 2, 3, 4)).backward()
        assert torch.isfinite(dead.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r'teacher must have 4 channels.*\(1, 3, 5, 5\)'):
        FTLoss(3, 4)(torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match='k=0.3 of 4 channels are 1.2; expected a whole number'):
        FTLoss(3, 4, k=0.3)
    with pytest.raises(ValueError, match="stage='paraphrase'.*Nearest: 'paraphraser'"):
        FTLoss(3, 4, stage='paraphrase')
    with pytest.raises(ValueError, match="reconstruction='l2'"):
        FTLoss(3, 4, reconstruction='l2')
