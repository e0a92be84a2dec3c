"""The teacher as an inference engine: what may be folded, converted or left out because it is never trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = [
    'PRECISIONS',
    'Trace',
    'fold_batch_norms',
    'needs_nchw',
    'relative_error',
    'to_plain',
    'trace',
    'unfold',
    'widened',
]

#: Name in a config → dtype.
PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


@dataclass
class Trace:
    """What ran in one forward.

    Attributes:
        ran: Modules whose forward began.
        pairs: Convolutions and the batch norms that alone read what they give.
    """

    ran: set[nn.Module] = field(default_factory=set)
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = field(default_factory=list)


@contextmanager
def trace(model: nn.Module) -> Iterator[Trace]:
    """Watch a forward of a model in eval mode.

    A batch norm is paired with a convolution if each time it ran it read the output of that convolution, as it came,
    and the convolution ran as often: shared convolutions with a norm per level (RTMDet) are no pairs.

    Args:
        model: The model. Its forward may be left by an exception.

    Yields:
        A :class:`Trace`, complete after the block.
    """
    found = Trace()
    makers: dict[int, tuple[nn.Module, int, Tensor]] = {}  # the tensor is kept, so that its id stays its own
    runs: dict[nn.Module, int] = {}
    sources: dict[nn.Module, list[nn.Module | None]] = {}

    def began(module: nn.Module, inputs: tuple) -> None:
        found.ran.add(module)
        if isinstance(module, _BatchNorm):
            read = inputs[0] if inputs else None
            maker, version, _ = makers.get(id(read), (None, 0, None))
            as_it_came = maker is not None and version == read._version  # not so behind an activation in place
            sources.setdefault(module, []).append(maker if as_it_came else None)

    def ended(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
            makers[id(output)] = (module, output._version, output)
            runs[module] = runs.get(module, 0) + 1

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(began))
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(ended))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
    for norm, read in sources.items():
        conv = read[0]
        if conv is not None and set(read) == {conv} and runs[conv] == len(read) and _foldable(conv, norm):
            found.pairs.append((conv, norm))
    taken = [conv for conv, _ in found.pairs]
    found.pairs = [(conv, norm) for conv, norm in found.pairs if taken.count(conv) == 1]


def _foldable(conv: nn.Conv2d, norm: _BatchNorm) -> bool:
    """Whether the two are one affine map: plain forwards, plain weights, running statistics."""
    plain = type(conv).forward in (nn.Conv2d.forward, Conv2d.forward)
    plain = plain and type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    own = 'weight' in conv._parameters and 'bias' in conv._parameters  # else a parametrisation makes it anew
    return plain and own and norm.running_mean is not None and len(norm.running_mean) == conv.out_channels


def needs_nchw(model: nn.Module) -> list[str]:
    """The classes of modules that read memory in NCHW order, whatever the strides say: operators of mmcv."""
    found = {
        type(m).__name__ for m in model.modules() if any(c.__module__.startswith('mmcv.ops') for c in type(m).__mro__)
    }
    return sorted(found)


@torch.no_grad()
def fold_batch_norms(
    model: nn.Module, pairs: Iterable[tuple[nn.Conv2d, _BatchNorm]], kept: Iterable[nn.Module] = ()
) -> list[tuple]:
    """Fold batch norms into the convolutions before them; identities take their places.

    In exact arithmetic nothing changes: ``w' = w gamma / sqrt(var + eps)``, ``b' = beta + (b - mean) gamma / sqrt(var +
    eps)``; it is computed in float64. The norm modules themselves stay as they are, for those who hold them.

    Args:
        model: The model, in eval mode, with its final weights.
        pairs: From :func:`trace`.
        kept: Modules that somebody reads: pairs with one of them are left alone.

    Returns:
        What was done, for :func:`unfold`.
    """
    kept, done = set(kept), []
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for conv, norm in pairs:
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in (conv, norm))
        if conv in kept or norm in kept or norm not in parents or hooked:
            continue
        shift = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
        scale = norm.weight if norm.weight is not None else torch.ones_like(norm.running_mean)
        offset = norm.bias if norm.bias is not None else torch.zeros_like(norm.running_mean)
        tensors = (conv.weight, shift, norm.running_mean, norm.running_var)
        values = [t.detach().double() for t in (*tensors, scale, offset)]
        weight, bias = fuse_conv_bn_weights(*values[:4], norm.eps, *values[4:])
        dtype = conv.weight.dtype
        done.append((conv, conv.weight, conv.bias, *parents[norm], norm))
        conv.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        parent, name = parents[norm]
        parent._modules[name] = nn.Identity().eval()
    return done


def unfold(done: Iterable[tuple]) -> None:
    """Undo :func:`fold_batch_norms`."""
    for conv, weight, bias, parent, name, norm in done:
        conv.weight, conv.bias = weight, bias
        parent._modules[name] = norm


def widened(tensor: Tensor) -> Tensor:
    """Half precision as float32 outside an autocast; all else as it is."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half and not torch.is_autocast_enabled(tensor.device.type) else tensor


def to_plain(tensor: Tensor) -> Tensor:
    """A reading as every loss may take it: in NCHW order, fit for autograd, and float32 outside an autocast."""
    if tensor.is_floating_point():
        tensor = widened(tensor).contiguous()
    return tensor.clone() if tensor.is_inference() else tensor


def relative_error(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Largest of the tensors' root mean square differences over the root mean square of what is expected.

    Infinite where shapes or what is not finite differ.
    """
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return math.inf
        a, b = a.double(), b.double()
        odd = ~(a.isfinite() & b.isfinite())
        if not torch.equal(a[odd].nan_to_num(), b[odd].nan_to_num()) or not torch.equal(a.isnan(), b.isnan()):
            return math.inf
        error, scale = float((a - b)[~odd].norm()), float(b[~odd].norm())
        worst = max(worst, error / scale if scale else error)
    return worst
