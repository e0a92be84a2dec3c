"""Each work-around does its work, and is still needed: a test named ``…_still_…`` fails once it can be deleted."""

import io
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from kd_det import compat
from kd_det.errors import CheckpointError, ConfigError

ROOT = Path(__file__).parents[1]


def run_python(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter: what an import does shows only there."""
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run([sys.executable, '-c', textwrap.dedent(code)], env=env, capture_output=True, text=True)


#: Makes ``kd_det.compat`` importable without the rest of kd_det, which uses mmrazor.
ALONE = f"""
import sys, types
sys.modules['kd_det'] = types.ModuleType('kd_det')
sys.modules['kd_det'].__path__ = [{str(ROOT / 'kd_det')!r}]
from kd_det import compat
compat.install()
"""


# --- mmrazor ----------------------------------------------------------------------------------------------------------


def test_mmrazor_still_needs_the_stand_in():
    done = run_python('import mmrazor.models')
    assert done.returncode != 0 and 'torch>=1.13' in done.stderr, 'mmrazor imports by itself: drop the stand-in'


@pytest.fixture(scope='module')
def mmrazor():
    return compat.import_mmrazor()


def test_mmrazor_imports_in_full(mmrazor):
    from mmrazor.engine.hooks import DMCPSubnetHook, RazorVisualizationHook, StopDistillHook  # noqa: F401
    from mmrazor.models import FpnTeacherDistill  # noqa: F401
    from mmrazor.models.architectures.connectors import FBKDStudentConnector, MGDConnector  # noqa: F401
    from mmrazor.models.losses import ChannelWiseDivergence, DKDLoss, PKDLoss  # noqa: F401
    from mmrazor.models.task_modules import ModuleOutputsRecorder, RecorderManager  # noqa: F401
    from mmrazor.registry import HOOKS, LOOPS, MODELS, TASK_UTILS

    for registry, name in (
        (MODELS, 'FpnTeacherDistill'),
        (MODELS, 'FBKDLoss'),
        (MODELS, 'MGDConnector'),
        (TASK_UTILS, 'ModuleOutputsRecorder'),
        (HOOKS, 'StopDistillHook'),
        (LOOPS, 'SingleTeacherDistillValLoop'),
    ):
        assert registry.get(name) is not None


def test_mmrazor_loss_computes(mmrazor):
    from mmrazor.models.losses import ChannelWiseDivergence

    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    p = teacher.flatten(2).softmax(-1)
    expected = (p * (p.log() - student.flatten(2).log_softmax(-1))).sum() / (2 * 3)
    torch.testing.assert_close(ChannelWiseDivergence(tau=1.0)(student, teacher), expected)


def test_soft_cross_entropy_still_is_a_placeholder():
    done = run_python(ALONE + 'from mmrazor.models.losses import kd_soft_ce_loss as m; print(m.soft_cross_entropy)')
    assert 'PlaceHolder' in done.stdout, f'mmrazor finds its own: drop soft_cross_entropy\n{done.stderr}'


def test_soft_cross_entropy(mmrazor):
    from mmrazor.models.losses import KDSoftCELoss

    student, teacher = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    rows = 4 * -(p * q.log()).sum(-1)
    weight = torch.rand(6, dtype=torch.float64)
    torch.testing.assert_close(KDSoftCELoss(tau=2.0)(student, teacher), rows.mean())
    torch.testing.assert_close(KDSoftCELoss(tau=2.0)(student, teacher, weight, 3), (rows * weight).sum() / 3)
    torch.testing.assert_close(KDSoftCELoss(tau=2.0, reduction='none')(student, teacher), rows)


def test_install_imports_no_part_of_mmrazor():
    done = run_python(ALONE + "print([n for n in sys.modules if n.startswith('mmrazor')])")
    assert done.stdout.strip() == '[]', done.stderr


def test_quantisation_names_raise_one_clear_error_when_used(mmrazor):
    from mmrazor.structures.quantization import BackendConfigs, QConfigHandler

    assert not isinstance(3, QConfigHandler)  # naming it is allowed

    def subclass():
        class Mine(QConfigHandler):
            pass

    for use in (
        QConfigHandler,
        lambda: BackendConfigs['native'],
        lambda: BackendConfigs.keys(),
        subclass,
        lambda: __import__('mmrazor.structures.quantization.backend_config.native'),
    ):
        with pytest.raises(ImportError, match=r'quantisation part of mmrazor does not import on torch .* torch 1\.13'):
            use()


def test_a_quantization_package_that_works_is_left_alone(tmp_path):
    package = tmp_path / 'mmrazor' / 'structures' / 'quantization'
    package.mkdir(parents=True)
    (tmp_path / 'mmrazor' / '__init__.py').touch()
    (package.parent / '__init__.py').touch()
    (package / '__init__.py').write_text('QConfigHandler = 7\n')
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
from mmrazor.structures import quantization
print(quantization.QConfigHandler, quantization.__file__, hasattr(quantization, '__kd_det_cause__'))
"""
    done = run_python(ALONE + code)
    assert done.stdout.split() == ['7', str(package / '__init__.py'), 'False'], done.stderr


def test_mmrazor_cwd_config_still_names_a_file_that_mmdet_does_not_have():
    mmdet = Path(compat.importlib.util.find_spec('mmdet').origin).parent
    text = (
        Path(compat.importlib.util.find_spec('mmrazor').origin).parent
        / '.mim/configs/distill/mmdet/cwd/cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py'
    ).read_text()
    assert 'mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py' in text
    assert not (mmdet / '.mim/configs/faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py').exists()


def test_rename_mmdet_configs():
    old, new = 'mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py', 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    cfg = Config(dict(a=dict(cfg_path=old, list=[old, new, 'mmdet::gfl/no_such_file.py', 'plain'])))
    assert compat.rename_mmdet_configs(cfg) == [(old, new)] * 2
    assert cfg.a.cfg_path == new
    assert cfg.a.list == [new, new, 'mmdet::gfl/no_such_file.py', 'plain']


# --- checkpoints ------------------------------------------------------------------------------------------------------


def saved(thing) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return buffer


def without_allow_list(code: str) -> subprocess.CompletedProcess:
    return run_python(
        'import io, torch, mmengine, numpy as np\n'
        'from mmengine.logging import HistoryBuffer\n'
        'def load(thing):\n'
        '    f = io.BytesIO(); torch.save(thing, f); f.seek(0)\n'
        '    return torch.load(f, weights_only=True)\n' + textwrap.dedent(code)
    )


def test_mmengine_checkpoint_still_needs_the_allow_list():
    done = without_allow_list('load(HistoryBuffer([1.0], [1]))')
    assert 'Unsupported global' in done.stderr, 'HistoryBuffer loads by itself: drop it from SAFE_GLOBALS'


def test_what_mmengine_checkpoints_hold_loads_with_weights_only():
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    history = HistoryBuffer([1.0, 3.0], [1, 1])
    thing = dict(
        history=history,
        float64=np.float64(0.25),
        int64=np.int64(3),
        bool=np.bool_(True),
        array=np.arange(6.0).reshape(2, 3),
        text=np.array(['a', 'bc']),
        config=ConfigDict(a=dict(b=(1, 2))),
        anneal=OneCycleParamScheduler._annealing_cos,
        weight=torch.ones(2),
    )
    loaded = torch.load(saved(thing), weights_only=True)
    assert loaded['history'].mean() == 2.0 and loaded['history'].statistics('max') == 3.0
    assert loaded['history'].__dict__.keys() == history.__dict__.keys() - {'statistics_methods'}
    assert (loaded['float64'], loaded['int64'], loaded['bool']) == (0.25, 3, True)
    np.testing.assert_array_equal(loaded['array'], thing['array'])
    np.testing.assert_array_equal(loaded['text'], thing['text'])
    assert loaded['config'].a.b == (1, 2)
    assert loaded['anneal'] is OneCycleParamScheduler._annealing_cos


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_arrays_written_by_numpy_1_and_2_load(core):
    class Pickler(pickle._Pickler):
        """Writes the module of numpy's functions as that major version of numpy would."""

        def save_global(self, obj, name=None):
            if getattr(obj, '__name__', '') in ('_reconstruct', 'scalar'):
                self.write(pickle.GLOBAL + f'{core}.multiarray\n{obj.__name__}\n'.encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

    module = SimpleNamespace(__name__='pickle', Pickler=Pickler, dump=pickle.dump, dumps=pickle.dumps)
    buffer = io.BytesIO()
    torch.save(dict(a=np.arange(3), s=np.float32(1.5)), buffer, pickle_module=module)
    assert f'{core}.multiarray'.encode() in buffer.getvalue()
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    np.testing.assert_array_equal(loaded['a'], np.arange(3))
    assert loaded['s'] == 1.5


class Getattr:
    """Pickles as a call of ``getattr``, with which a pickle could reach anything."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize(
    'thing',
    [
        Getattr(HistoryBuffer, '__init__'),
        Getattr(HistoryBuffer, '__globals__'),
        Getattr(np.ndarray, 'tofile'),
        Getattr(ConfigDict, 'build'),
    ],
)
def test_the_allow_list_gives_no_way_to_other_attributes(thing):
    with pytest.raises(pickle.UnpicklingError, match='not in the allow-list'):
        torch.load(saved(thing), weights_only=True)


class Evil:
    def __reduce__(self):
        return os.mkdir, ('this_must_not_exist',)


def test_mmengine_still_unpickles_urls(tmp_path, monkeypatch):
    """Without the work-around a file behind a URL may run code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    torch.save(dict(a=Evil()), tmp_path / 'hub' / 'checkpoints' / 'evil.pth')  # as if downloaded
    from mmengine.runner.checkpoint import load_from_http

    load_from_http('https://example.invalid/evil.pth')
    assert (tmp_path / 'this_must_not_exist').exists(), 'mmengine loads URLs safely now: drop our http scheme'
    (tmp_path / 'this_must_not_exist').rmdir()
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint('https://example.invalid/evil.pth')
    assert not (tmp_path / 'this_must_not_exist').exists()


def test_mmengine_still_imports_torchvision_for_its_scheme(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    from mmengine.runner.checkpoint import get_torchvision_models

    with pytest.raises(ImportError):
        get_torchvision_models()


def test_torchvision_names_resolve_without_torchvision(tmp_path, monkeypatch):
    assert (
        compat.torchvision_url('torchvision://resnet50') == 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    )
    with pytest.raises(ConfigError, match="Nearest: 'resnet50'"):
        compat.torchvision_url('torchvision://resnet5O')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    torch.save({'conv1.weight': torch.ones(1)}, tmp_path / 'hub' / 'checkpoints' / 'resnet50-0676ba61.pth')
    assert CheckpointLoader.load_checkpoint('torchvision://resnet50')['conv1.weight'] == 1


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r'http://127.0.0.1:9/a%2Bb\.pth cannot be downloaded .* put the file into'
    ):
        CheckpointLoader.load_checkpoint('http://127.0.0.1:9/a%2Bb.pth')
    assert not list(tmp_path.rglob('*.pth*'))


def test_mmengine_still_writes_checkpoints_in_place(tmp_path, monkeypatch):
    """A disk that fills up while saving destroys the old file in mmengine, and does not with our backend."""
    import builtins

    from mmengine.fileio.backends import LocalBackend

    real_open = builtins.open

    def full_disk(*args, **kwargs):
        file = real_open(*args, **kwargs)
        if 'w' in (args[1] if len(args) > 1 else kwargs.get('mode', 'r')):

            def write(data):
                type(file).write(file, data[:3])
                raise OSError(28, 'No space left on device')

            return type(
                'Full', (), dict(__enter__=lambda s: s, __exit__=lambda s, *e: file.close(), write=staticmethod(write))
            )()
        return file

    target = tmp_path / 'epoch_1.pth'
    target.write_bytes(b'old and whole')
    with monkeypatch.context() as patch:
        patch.setattr(builtins, 'open', full_disk)
        patch.setattr(io, 'open', full_disk)
        with pytest.raises(OSError):
            compat.AtomicLocalBackend().put(b'new', target)
    assert target.read_bytes() == b'old and whole' and [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
    with monkeypatch.context() as patch:
        patch.setattr(builtins, 'open', full_disk)
        with pytest.raises(OSError):
            LocalBackend().put(b'new and broken', str(target))
    assert target.read_bytes() == b'new', 'mmengine writes whole files now: drop AtomicLocalBackend'


def test_runner_saves_through_the_atomic_backend(tmp_path, monkeypatch):
    from mmengine.fileio.backends import registry_utils
    from mmengine.runner import save_checkpoint

    monkeypatch.setitem(registry_utils.backends, 'local', registry_utils.backends['local'])  # restored afterwards
    monkeypatch.setitem(registry_utils.prefix_to_backends, '', registry_utils.prefix_to_backends[''])
    puts = []
    real_put = compat.AtomicLocalBackend.put
    monkeypatch.setattr(
        compat.AtomicLocalBackend, 'put', lambda self, obj, path: (puts.append(path), real_put(self, obj, path))
    )
    compat.register_atomic_local_backend()
    save_checkpoint(dict(state_dict=dict(a=torch.ones(1))), str(tmp_path / 'a.pth'))
    assert puts == [str(tmp_path / 'a.pth')]
    assert torch.load(tmp_path / 'a.pth')['state_dict']['a'] == 1


# --- distributed ------------------------------------------------------------------------------------------------------

DISTRIBUTED = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT='29541')


@pytest.mark.skipif(torch.cuda.is_available(), reason='concerns machines without an accelerator')
def test_mmengine_still_sets_a_cuda_device_on_cpu(monkeypatch):
    from mmengine.dist import init_dist

    for name, value in DISTRIBUTED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match='(?i)cuda|nvidia'):
        init_dist('pytorch', backend='gloo')
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason='concerns machines without an accelerator')
@pytest.mark.parametrize(
    'launcher, names',
    [
        ('pytorch', {}),
        ('slurm', dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID')),
        (
            'mpi',
            dict(
                RANK='OMPI_COMM_WORLD_RANK', WORLD_SIZE='OMPI_COMM_WORLD_SIZE', LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK'
            ),
        ),
    ],
)
def test_cpu_processes_start_over_gloo(monkeypatch, launcher, names):
    for name, value in DISTRIBUTED.items():
        monkeypatch.setenv(name, value)
        if name in names:
            monkeypatch.setenv(names[name], value)
            monkeypatch.delenv(name)
    cfg = Config(dict(launcher=launcher, find_unused_parameters=True))
    try:
        assert compat.init_cpu_distributed(cfg)
        assert torch.distributed.get_backend() == 'gloo' and torch.distributed.get_world_size() == 1
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, find_unused_parameters=True
    )


def test_no_launcher_starts_nothing():
    cfg = Config(dict(launcher='none'))
    assert not compat.init_cpu_distributed(cfg) and 'model_wrapper_cfg' not in cfg


@pytest.mark.skipif(torch.cuda.is_available(), reason='concerns machines without an accelerator')
def test_a_launcher_that_set_nothing_is_reported(monkeypatch):
    for name in DISTRIBUTED:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match='RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR are not set'):
        compat.init_cpu_distributed(Config(dict(launcher='pytorch')))


# --- mmdet ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('family', ['deformable', 'dino'])
def test_mmdet_still_leaves_parameters_uninitialised(uninitialised_memory_is_nan, family):
    import tiny_models

    make = getattr(tiny_models, family)
    names = [n for n, p in tiny_models.build(make(), init=False).named_parameters() if p.isnan().any()]
    assert names == ['level_embed'], 'mmdet initialises it: drop fill_uninitialised'
    model = tiny_models.distiller(make(), make(base=16), dict(cwd=tiny_models.cwd('neck')), init=False)
    for network in (model.student, model.teacher.model):
        assert all(torch.isfinite(p).all() for p in network.parameters()) and not network.level_embed.any()


def test_mmdet_still_leaves_ssds_scale_uninitialised(uninitialised_memory_is_nan):
    from kd_det.registry import MODELS

    neck = MODELS.build(
        dict(
            type='mmdet.SSDNeck', in_channels=(16, 32), out_channels=(16, 32, 32), level_strides=(2,),
            level_paddings=(1,), l2_norm_scale=7.0,
        )
    )  # fmt: skip
    names = [n for n, p in neck.named_parameters() if p.isnan().any()]
    assert names == ['l2_norm.weight'], 'mmdet initialises it: drop it from fill_uninitialised'
    compat.fill_uninitialised(neck)
    assert bool((neck.l2_norm.weight == 7).all())


def test_mmdets_ssd_still_cannot_predict(monkeypatch):
    import tiny_models
    from mmdet.models.dense_heads import SSDHead

    model = tiny_models.build(tiny_models.ssd()).eval()
    images, samples = tiny_models.batch(model, training=False)
    found = model.predict(images, samples)
    assert len(found) == len(images) and all(len(f.pred_instances.scores) for f in found)
    monkeypatch.delattr(SSDHead, 'loss_cls')
    with pytest.raises(AttributeError, match='loss_cls'):
        model.predict(images, samples)


# ----------------------------------------------------------------------------------------------------------------------


def test_install_twice_is_install_once():
    compat.install()
    before = len(sys.meta_path)
    compat.install()
    assert len(sys.meta_path) == before and mmengine.__version__
