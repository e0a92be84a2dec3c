"""The student as a plain mmdet checkpoint, written by the training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kd_det.checkpoint import export_student
from kd_det.detectors import ParaphraserTrainer
from kd_det.registry import HOOKS


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Writes ``student_<name>.pth``, which plain mmdet loads, beside the checkpoints of the training.

    ``student_last.pth`` is written when training ends. Where the ``CheckpointHook`` saves a best checkpoint
    (``save_best``), ``student_<its name>.pth`` follows it, and the one of the previous best goes. With an EMA hook the
    averaged weights are written, as in the checkpoints. The training checkpoints, from which a run resumes, are not
    touched.

    Args:
        out_dir: The folder; the runner's ``work_dir`` if None.
        last: Whether to write ``student_last.pth``.
        best: Whether to follow ``save_best``.
    """

    priority = 'LOWEST'  # after CheckpointHook has decided what is best, after EMAHook has swapped the weights back

    def __init__(self, out_dir: str | None = None, last: bool = True, best: bool = True) -> None:
        self.out_dir = out_dir
        self.last = last
        self.best = best
        self._known: dict[str, str] = {}

    def before_train(self, runner: Runner) -> None:
        """Note the best checkpoints of the run that is resumed."""
        self._known = self._best_checkpoints(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Follow each best checkpoint that has changed."""
        if self.best:
            self._follow_best(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the student as it is when training ends."""
        if self.last:
            self._write(runner, 'student_last.pth')

    @staticmethod
    def _best_checkpoints(runner: Runner) -> dict[str, str]:
        """Key of the message hub → path, for each metric that has a best checkpoint."""
        return {
            key: str(value)
            for key, value in runner.message_hub.runtime_info.items()
            if key.startswith('best_ckpt') and value
        }

    @master_only
    def _follow_best(self, runner: Runner) -> None:
        for key, path in self._best_checkpoints(runner).items():
            old = self._known.get(key)
            if path == old:
                continue
            self._write(runner, f'student_{Path(path).name}')
            if old is not None:
                (self._folder(runner) / f'student_{Path(old).name}').unlink(missing_ok=True)
            self._known[key] = path

    def _folder(self, runner: Runner) -> Path:
        return Path(self.out_dir or runner.work_dir)

    @master_only
    def _write(self, runner: Runner, name: str) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if isinstance(model, ParaphraserTrainer):  # a stage without a student
            return
        meta: dict[str, Any] = dict(
            epoch=runner.epoch, iter=runner.iter, seed=runner.seed, experiment_name=runner.experiment_name
        )
        dataset = getattr(runner.train_dataloader, 'dataset', None)
        if hasattr(dataset, 'metainfo'):
            meta['dataset_meta'] = dataset.metainfo
        checkpoint = dict(meta=meta, state_dict=model.state_dict())
        runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)  # where EMAHook puts the averaged weights in
        cfg = runner.cfg if isinstance(runner.cfg.get('model'), dict) else None  # not if it was given built parts
        path = export_student(checkpoint, self._folder(runner) / name, cfg=cfg, source=runner.experiment_name)
        runner.logger.info(f'The student, for plain mmdet, is in {path}')
