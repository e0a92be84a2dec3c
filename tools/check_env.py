"""Check an environment: the compiled ops of mmcv really run, mmrazor imports, and the versions fit together.

Prints the versions. Exits with 1, after one sentence that says what to do, if something does not work.
"""

import importlib
import importlib.metadata
import platform
import sys
import warnings

REBUILD = (
    'build mmcv 2.1.0 from source against the torch that is installed: `make env`, or `MMCV_WITH_OPS=1 pip install '
    '--no-build-isolation --no-cache-dir --force-reinstall --no-deps --no-binary mmcv mmcv==2.1.0`'
)


class Problem(Exception):
    """What is wrong, and the remedy."""


def check_imports() -> dict[str, str]:
    """Import the packages and return their versions."""
    versions = {'python': platform.python_version()}
    for name in ('numpy', 'torch', 'mmengine', 'mmcv', 'mmdet', 'pycocotools'):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise Problem(
                f'{name} cannot be imported: the package {error.name!r} is not installed; run `make env`, or '
                '`pip install -r requirements/runtime.txt`.'
            ) from error
        except AssertionError as error:  # mmdet checks the version of mmcv
            raise Problem(f'{name} refuses the installed versions ({error}); run `make env`.') from error
        versions[name] = getattr(module, '__version__', None) or importlib.metadata.version(name)
    return versions


def check_ops(device: str = 'cpu') -> None:
    """Call nms and RoIAlign of mmcv and compare with results known by hand."""
    import torch

    try:
        from mmcv.ops import nms, roi_align
    except (ImportError, OSError) as error:
        raise Problem(
            f'mmcv is installed without compiled ops that fit torch {torch.__version__} ({error}); {REBUILD}.'
        ) from error
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]], device=device)
    image = torch.arange(16.0, device=device).reshape(1, 1, 4, 4)
    try:
        kept = nms(boxes, torch.tensor([0.5, 0.9, 0.1], device=device), iou_threshold=0.5)[1]
        # one bin over the whole map, sampled at the four pixel centres around its middle
        pooled = roi_align(image, torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]], device=device), (1, 1), 1.0, 2, 'avg', True)
    except Exception as error:
        remedy = REBUILD if device == 'cpu' else f'with the CUDA toolkit of that torch installed, {REBUILD}'
        raise Problem(
            f"mmcv's compiled ops do not run on {device} ({str(error).splitlines()[0]}); {remedy}."
        ) from error
    if kept.tolist() != [1, 2] or abs(pooled.item() - 7.5) > 1e-5:
        raise Problem(
            f"mmcv's compiled ops give wrong results on {device} (nms {kept.tolist()}, expected [1, 2]; RoIAlign "
            f'{pooled.item()}, expected 7.5); {REBUILD}.'
        )


def check_mmrazor() -> str:
    """Import mmrazor in full through kd_det and return its version."""
    try:
        from kd_det.compat import import_mmrazor

        mmrazor = import_mmrazor()
        from mmrazor.registry import MODELS
    except ValueError as error:  # KDDetError is one; importing kd_det imports mmrazor
        raise Problem(str(error)) from error
    for name in ('FpnTeacherDistill', 'ChannelWiseDivergence', 'MGDConnector'):
        if MODELS.get(name) is None:
            raise Problem(f'mmrazor imports, but {name} is not registered; run `make env`.')
    return mmrazor.__version__


def main() -> int:
    """Run the checks and print what was found."""
    warnings.filterwarnings('ignore')
    try:
        versions = check_imports()
        check_ops()
        import torch

        devices = 'cpu'
        if torch.cuda.is_available():
            try:
                check_ops('cuda')
                devices = f'cpu, {torch.cuda.get_device_name()}'
            except Problem as problem:  # a CPU build serves, slowly
                print(f'warning: the GPU cannot be used: {problem}', file=sys.stderr)
        versions['mmrazor'] = check_mmrazor()
        import kd_det

        versions['kd_det'] = kd_det.__version__
    except Problem as problem:
        print(f'error: {problem}', file=sys.stderr)
        return 1
    print('  '.join(f'{name} {version}' for name, version in versions.items()))
    print(f'compiled ops of mmcv (nms, RoIAlign) run on: {devices}; mmrazor imports in full')
    return 0


if __name__ == '__main__':
    sys.exit(main())
