"""Instance ids that survive flips, crops, filtering and mosaics.

Every transform that drops, joins or reorders boxes does the same to their labels, so the id travels in the label: a
transform at the start of the pipeline writes ``offset + id`` where the label was, and one behind ``PackDetInputs``
writes the label back and the id beside it. ``offset`` is above all labels, so that a label which some transform adds by
itself stays what it is, without an id. Ids are small whole numbers, exact even where a library keeps labels as float32
(up to 16 million).

Of mmdet's transforms one alone looks at what a label says, ``RandomSamplingNegPos`` (text prompts); it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from kd_det.errors import ConfigError, DataError

_READS_LABELS = ('RandomSamplingNegPos',)


class MarkInstances:
    """Writes codes where the labels of an image were; the first transform of a data set's pipeline.

    Args:
        starts: The code of the first annotation of each image, shape (images,).
    """

    def __init__(self, starts: np.ndarray) -> None:
        self.starts = starts

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``instances[i]['bbox_label']``."""
        start = int(self.starts[results['sample_idx']])
        marked = [{**instance, 'bbox_label': start + i} for i, instance in enumerate(results['instances'])]
        return {**results, 'instances': marked}


class ReadInstances:
    """Splits codes into ``labels`` and ``instance_ids``; follows ``PackDetInputs``.

    Ids are LongTensors of shape (n,), in ``gt_instances`` and in ``ignored_instances``, -1 for a box without one.

    Args:
        labels: The label of each id, shape (instances,).
        offset: The code of id 0; smaller codes are plain labels.
    """

    def __init__(self, labels: np.ndarray, offset: int) -> None:
        self.labels, self.offset = labels, offset

    def __call__(self, packed: dict[str, Any]) -> dict[str, Any]:
        """Change the data sample.

        Raises:
            DataError: If a label is no code.
        """
        sample = packed['data_samples']
        for name in ('gt_instances', 'ignored_instances'):
            instances: InstanceData | None = sample.get(name)
            if instances is not None and 'labels' in instances:
                instances.labels, instances.instance_ids = self.decode(instances.labels)
        return packed

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and ids of codes, all of shape (n,)."""
        codes = codes.long()
        ids = (codes - self.offset).clamp(min=-1)
        if (ids >= len(self.labels)).any():
            raise DataError(
                f'InstanceIdHook: found a label of {int(codes.max())}, expected less than '
                f'{self.offset + len(self.labels)}: a transform of train_dataloader.dataset.pipeline changes labels.'
            )
        known = torch.from_numpy(self.labels[ids.clamp(min=0).numpy()])
        return torch.where(ids >= 0, known, codes), ids


def give_ids(dataset: Any) -> tuple[np.ndarray, ReadInstances]:
    """Number all annotations of a data set, through all its wrappers, and put the two transforms into its pipelines.

    The ids run from 0, data set by data set and image by image in the order of ``get_data_info``, with ignored objects
    counted: they are the same in each run with the same annotation files and filters. Calling it again is harmless.

    Args:
        dataset: A data set of mmdet, or a wrapper of such (``ConcatDataset``, ``RepeatDataset``,
            ``ClassBalancedDataset``, ``MultiImageMixDataset``).

    Returns:
        The label of each id, shape (instances,), and the second transform, for pipelines that come later.

    Raises:
        ConfigError: If the data set or its pipeline is none that can carry ids.
    """
    bases = list(_bases(dataset))
    labels: list[int] = []
    counts: list[np.ndarray] = []
    for base in bases:
        found = []
        for index in range(len(base)):
            info = base.get_data_info(index)
            if 'instances' not in info or 'sample_idx' not in info:
                raise ConfigError(
                    f'train_dataloader.dataset: {type(base).__name__} has no annotated instances; expected a data set '
                    'of boxes, such as CocoDataset.'
                )
            labels += [instance['bbox_label'] for instance in info['instances']]
            found.append(len(info['instances']))
        counts.append(np.array(found, dtype=np.int64))
    table = np.array(labels, dtype=np.int64)
    offset = int(table.max(initial=-1)) + 1
    read = ReadInstances(table, offset)
    _insert(dataset, read, packed=False)
    first = offset
    for base, number in zip(bases, counts):
        base.pipeline.transforms.insert(0, MarkInstances(first + number.cumsum() - number))
        first += int(number.sum())
    return table, read


def read_after_packing(pipeline: list[Any], read: ReadInstances) -> list[Any]:
    """A pipeline, of built or configured transforms, with ``read`` behind each ``PackDetInputs``.

    Raises:
        ConfigError: If a transform needs to see labels.
    """
    result = []
    for step in pipeline:
        if isinstance(step, (MarkInstances, ReadInstances)):
            continue  # of an earlier call
        name = _type_name(step)
        if name in _READS_LABELS:
            raise ConfigError(
                f'train_dataloader.dataset.pipeline: {name} looks at labels, which carry the instance ids under '
                'InstanceIdHook; expected a pipeline without it, or no InstanceIdHook.'
            )
        result += [step, read] if name == 'PackDetInputs' else [step]
    return result


def _bases(dataset: Any) -> Iterator[Any]:
    """The data sets below all wrappers, each once."""
    seen: set[int] = set()
    waiting = [dataset]
    while waiting:
        one = waiting.pop(0)
        if hasattr(one, 'full_init'):
            one.full_init()
        inside = getattr(one, 'datasets', None) or [getattr(one, 'dataset', None)]
        if inside != [None]:
            waiting = [*inside, *waiting]
        elif not hasattr(getattr(one, 'pipeline', None), 'transforms') or not hasattr(one, 'get_data_info'):
            raise ConfigError(
                f'train_dataloader.dataset: {type(one).__name__} cannot carry instance ids; expected a data set of '
                'mmdet, such as CocoDataset, or a wrapper of such.'
            )
        elif id(one) not in seen:
            seen.add(id(one))
            yield one


def _insert(dataset: Any, read: ReadInstances, packed: bool) -> None:
    """Put ``read`` into the pipelines of a data set and all below; ``packed``: a pipeline above packs the samples."""
    pipeline = getattr(dataset, 'pipeline', None)
    if isinstance(pipeline, list):  # MultiImageMixDataset: with a list of type names beside
        types = dict(zip(map(id, pipeline), dataset.pipeline_types))
        dataset.pipeline = read_after_packing(pipeline, read)
        dataset.pipeline_types = [types.get(id(step), type(step).__name__) for step in dataset.pipeline]
        packed = packed or read in dataset.pipeline
    elif pipeline is not None:
        pipeline.transforms = read_after_packing(pipeline.transforms, read)
        packed = packed or read in pipeline.transforms
    inside = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inside != [None]:
        for one in inside:
            _insert(one, read, packed)
    elif not packed:
        raise ConfigError(
            f'train_dataloader.dataset: the pipeline of {type(dataset).__name__} has no PackDetInputs, behind which '
            'the instance ids are read; expected one at its end.'
        )


def _type_name(step: Any) -> str:
    name = step['type'] if isinstance(step, dict) else type(step)
    return name.rsplit('.', 1)[-1] if isinstance(name, str) else name.__name__
