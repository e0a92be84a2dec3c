"""``tools/test.py`` and ``tools/export_student.py`` on plain mmdet models; on distilled ones in tests/integration."""

import pickle

import numpy as np
import pytest
import torch
from test_train import RETINA, options, refused, tool
from tiny import write_tiny_coco

from kd_det.engine import guarded, prepare_test, run_test
from kd_det.engine.arguments import parse_test

# four epochs at a learning rate that a thin head needs, so that there are detections to compare
TRAIN = [
    'train_cfg.max_epochs=4',
    'train_cfg.val_begin=9',
    'optim_wrapper.optimizer.lr=0.02',
    'param_scheduler=None',
    'model.test_cfg.score_thr=0.001',
]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp('trained')
    coco = write_tiny_coco(root / 'coco', n_train=2, n_val=2)
    assert guarded(tool('train').main, [RETINA, '--work-dir', str(root / 'w'), *options(coco, *TRAIN)]) == 0
    return coco, root / 'w' / 'epoch_4.pth'


def predictions(coco, checkpoint, folder, *arguments, more=()):
    out = folder / 'out.pkl'
    argv = [
        RETINA,
        str(checkpoint),
        '--work-dir',
        str(folder / 'w'),
        '--out',
        str(out),
        *arguments,
        *options(coco, *TRAIN[-1:], *more),
    ]
    args = parse_test(argv)
    metrics = run_test(prepare_test(args), args.checkpoint, args.out)
    return metrics, [item['pred_instances'] for item in pickle.loads(out.read_bytes())]


def test_predictions_equal_mmdets_own(trained, tmp_path):
    """mmdet's ``init_detector`` and ``inference_detector`` on the same files."""
    from mmdet.apis import inference_detector, init_detector

    coco, checkpoint = trained
    metrics, found = predictions(coco, checkpoint, tmp_path)
    assert 'coco/bbox_mAP' in metrics and len(found) == 2
    meta = torch.load(checkpoint)['meta']
    from mmengine.config import Config

    model = init_detector(Config.fromstring(meta['cfg'], '.py'), str(checkpoint), device='cpu')
    for index, item in enumerate(found, 1):
        expected = inference_detector(model, str(coco / 'val2017' / f'{index}.png')).pred_instances
        assert len(expected) > 0
        for key in ('bboxes', 'scores', 'labels'):
            np.testing.assert_array_equal(item[key].numpy(), expected[key].numpy())


def test_exported_checkpoint_gives_the_same_predictions(trained, tmp_path, capsys):
    coco, checkpoint = trained
    assert (
        guarded(
            tool('export_student').main,
            [str(checkpoint), str(tmp_path / 'student.pth'), '--hash', '--config-out', str(tmp_path / 'student.py')],
        )
        == 0
    )
    exported = capsys.readouterr().out.split()[-1]
    assert exported.startswith(str(tmp_path / 'student-')) and (tmp_path / 'student.py').exists()
    full = predictions(coco, checkpoint, tmp_path / 'a')
    slim = predictions(coco, exported, tmp_path / 'b')
    assert full[0] == slim[0]
    for one, other in zip(full[1], slim[1]):
        torch.testing.assert_close(dict(one), dict(other), rtol=0, atol=0)


def test_tta_and_pictures(trained, tmp_path):
    coco, checkpoint = trained
    plain = predictions(coco, checkpoint, tmp_path / 'plain')[1]
    flipped = predictions(coco, checkpoint, tmp_path / 'tta', '--tta', '--show-dir', 'pictures')[1]
    assert len(flipped) == len(plain) == 2
    assert any(
        len(a['scores']) != len(b['scores']) or not torch.equal(a['scores'], b['scores'])
        for a, b in zip(plain, flipped)
    ), 'the flipped view changed nothing'
    assert len(list((tmp_path / 'tta' / 'w').rglob('pictures/*.png'))) == 2


@pytest.mark.parametrize(
    'what, parts',
    [
        ('missing', ['checkpoint: ', "does not exist. Nearest: 'epoch_4.pth'"]),
        ('another model', ['does not fit the model of the config, RetinaNet', 'is (16,', 'expected (32,']),
        ('no pickle name', ['--out', 'out.json', '.pkl']),
        ('no data', ['test_dataloader.dataset.data_root']),
    ],
)
def test_bad_input(what, parts, trained, tmp_path):
    coco, checkpoint = trained
    argv = [RETINA, str(checkpoint), '--work-dir', str(tmp_path), *options(coco)]
    if what == 'missing':
        argv[1] = str(checkpoint.with_name('epoch_5.pth'))
    elif what == 'another model':
        argv += ['model.neck.out_channels=32', 'model.bbox_head.in_channels=32']
    elif what == 'no pickle name':
        argv = [*argv[:2], '--out', 'out.json', *argv[2:]]
    else:
        argv += ['test_dataloader.dataset.data_root=nowhere/']
    text = refused(argv, tool('test').main)
    for part in parts:
        assert part in text, text


def test_export_errors(trained, tmp_path):
    text = refused([str(tmp_path / 'none.pth'), str(tmp_path / 'x.pth')], tool('export_student').main)
    assert 'none.pth' in text and not (tmp_path / 'x.pth').exists()
