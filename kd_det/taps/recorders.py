"""mmrazor's recorders, bound to one module of one network.

mmrazor looks a module up by its first name, cannot let go of a hook, and records a method on the class, so that the
teacher's and the student's calls mix. These subclasses record on the instance that the tap names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError

import_mmrazor()
from mmrazor.models.task_modules.recorder import (  # noqa: E402
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
)
from mmrazor.models.task_modules.recorder.base_recorder import BaseRecorder  # noqa: E402

#: Activations outside ``torch.nn`` that detectors use.
_OTHER_ACTIVATIONS = ('Clamp', 'Clip', 'DyReLU', 'GELU', 'HSigmoid', 'HSwish', 'Swish', 'MemoryEfficientSwish')


class _OnModule:
    """What both module recorders share: the module is given, and whoever waits for the records is told of each."""

    def __init__(self, source: str, module: nn.Module, told: Callable[[], None]) -> None:
        super().__init__(source)
        self._module, self._told = module, told
        #: Keep a copy, because the network overwrites the tensor in place later. Set by the plan's probe.
        self.copies = False

    def _after(self, count: int) -> None:
        if len(self.data_buffer) > count:
            if self.copies:
                self.data_buffer[-1] = clone(self.data_buffer[-1])
            self._told()


class OutputsRecorder(_OnModule, ModuleOutputsRecorder):
    """Records what a module returns."""

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        self._module.register_forward_hook(self.forward_hook)

    def forward_hook(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        count = len(self.data_buffer)
        super().forward_hook(module, inputs, outputs)
        self._after(count)


class InputsRecorder(_OnModule, ModuleInputsRecorder):
    """Records the positional inputs of a module."""

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        self._module.register_forward_pre_hook(self.forward_pre_hook)

    def forward_pre_hook(self, module: nn.Module, inputs: tuple, *args: Any) -> None:
        if self.recording:
            self.data_buffer.append(inputs)
            self._after(len(self.data_buffer) - 1)


class PreActivationRecorder(_OnModule, ModuleInputsRecorder):
    """Records what goes into the last activation that runs inside a module, once per run of the module.

    Activations inside the module stop working in place, so that what went in stays as it was; their results are equal.

    Raises:
        ConfigError: If the module holds no activation module.
    """

    def __init__(self, source: str, module: nn.Module, told: Callable[[], None]) -> None:
        super().__init__(source, module, told)
        self._latest: Any = None

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        found = activations_in(self._module)
        if not found:
            raise ConfigError(
                f'{self.source!r}: {type(self._module).__name__} holds no activation module (ReLU, SiLU, …), so that '
                'there is nothing before one; expected a stage, a block or a convolution with its activation.'
            )
        self._module.register_forward_pre_hook(self._begin)
        for module in found:
            if getattr(module, 'inplace', False):
                module.inplace = False
            module.register_forward_pre_hook(self._see)
        self._module.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, inputs: tuple) -> None:
        self._latest = None

    def _see(self, module: nn.Module, inputs: tuple) -> None:
        if self.recording:
            self._latest = inputs[0]

    def _end(self, module: nn.Module, inputs: tuple, outputs: Any) -> None:
        if self._latest is not None:
            self.data_buffer.append(self._latest)
            self._latest = None
            self._after(len(self.data_buffer) - 1)


class MethodRecorder(BaseRecorder):
    """Records what a method of one instance returns."""

    def __init__(self, source: str, module: nn.Module, method: str, told: Callable[[], None]) -> None:
        super().__init__(source)
        self._module, self._method, self._told = module, method, told
        self.copies = False
        self._replaced: dict[str, Any] = {}

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Nothing to prepare: the method is replaced while recording."""

    def __enter__(self) -> None:
        super().__enter__()
        self._replaced = {k: v for k, v in self._module.__dict__.items() if k == self._method}
        method = getattr(self._module, self._method)

        @functools.wraps(method)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.data_buffer.append(clone(result) if self.copies else result)
            self._told()
            return result

        self._module.__dict__[self._method] = recorded

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        self._module.__dict__.pop(self._method, None)
        self._module.__dict__.update(self._replaced)
        super().__exit__(exc_type, exc_value, traceback)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an element-wise non-linearity: torch's own, or one registered with mmengine or mmcv."""
    if isinstance(module, (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.MultiheadAttention)):
        return False
    return type(module).__module__ == nn.ReLU.__module__ or type(module).__name__ in _OTHER_ACTIVATIONS


def activations_in(module: nn.Module) -> list[nn.Module]:
    """The activations in a module, without those that are parts of another one (in DyReLU)."""
    if is_activation(module):
        return [module]
    return [found for child in module.children() for found in activations_in(child)]


def clone(value: Any) -> Any:
    """A copy of all tensors in ``value``, in the graph."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (list, tuple)):
        items = [clone(item) for item in value]
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value


def versions(value: Any) -> list[int]:
    """The version counters of all tensors in ``value``: they grow when a tensor is overwritten in place."""
    if isinstance(value, Tensor):
        return [] if torch.is_inference(value) else [value._version]
    if isinstance(value, (list, tuple)):
        return [version for item in value for version in versions(item)]
    return []
