"""Numbers the annotated instances, for methods that remember each of them."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from kd_det.datasets.instance_ids import MarkInstances, ReadInstances, give_ids, read_after_packing
from kd_det.errors import ConfigError
from kd_det.losses import CRDLoss
from kd_det.registry import HOOKS


@HOOKS.register_module()
class InstanceIdHook(Hook):
    """Gives each annotated object of the training set an id, and each :class:`~kd_det.losses.CRDLoss` its memory.

    The ids are in ``data_samples[i].gt_instances.instance_ids``, a LongTensor of shape (n,), from 0 to the number of
    instances; see :mod:`kd_det.datasets.instance_ids`. They follow the annotation files, so that a resumed run has the
    same. Later pipelines (mmdet's ``PipelineSwitchHook``) carry them too. Testing is left alone.

    Raises:
        ConfigError: If the data set cannot carry ids, or a ``CRDLoss`` has too small an ``n_data``.
    """

    priority = 'HIGH'  # before EMAHook copies the model

    def before_run(self, runner: Runner) -> None:
        """Number the instances, before weights are loaded."""
        if not isinstance(runner._train_loop, BaseLoop):  # the property would build it, in testing too
            return
        dataset = runner.train_dataloader.dataset
        labels, read = give_ids(dataset)
        for hook in runner.hooks:
            if isinstance(getattr(hook, 'switch_pipeline', None), list):
                hook.switch_pipeline = self._carrying(hook.switch_pipeline, dataset, read)
        runner.logger.info(f'InstanceIdHook: {len(labels)} annotated instances have ids.')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, module in model.named_modules():
            if isinstance(module, CRDLoss):
                self._size(module, '.'.join(name.split('.')[:2]), len(labels))

    @staticmethod
    def _carrying(pipeline: list, dataset: Any, read: ReadInstances) -> list:
        """A pipeline that will take the place of the data set's own, with the transforms of the ids."""
        own = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
        return [*(step for step in own if isinstance(step, MarkInstances)), *read_after_packing(pipeline, read)]

    @staticmethod
    def _size(loss: CRDLoss, key: str, count: int) -> None:
        if loss.n_data is None:
            loss.hold(count)
        elif loss.n_data < count:
            raise ConfigError(
                f'{key}.loss.n_data: found {loss.n_data}, expected at least {count}, the number of annotated instances '
                'of the training set; or leave n_data out.'
            )
