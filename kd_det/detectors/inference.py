"""The teacher as an inference engine: what may be folded, converted or left out because it is never trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = [
    'PRECISIONS',
    'Trace',
    'can_pack',
    'fold_batch_norms',
    'needs_nchw',
    'pack_convolutions',
    'relative_error',
    'to_plain',
    'trace',
    'unfold',
    'unpack',
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
    plain = _is_plain(conv) and type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return plain and norm.running_mean is not None and len(norm.running_mean) == conv.out_channels


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether its forward is a convolution with weights of its own, which no parametrisation makes anew."""
    own = 'weight' in conv._parameters and 'bias' in conv._parameters
    return own and type(conv).forward in (nn.Conv2d.forward, Conv2d.forward) and 'forward' not in conv.__dict__


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


def can_pack(like: Tensor) -> bool:
    """Whether :func:`pack_convolutions` works where this tensor lies."""
    mkldnn = torch.backends.mkldnn
    here = like.device.type == 'cpu' and like.dtype == torch.float32 and mkldnn.is_available() and mkldnn.enabled
    return here and all(
        hasattr(torch.ops.mkldnn, f'_{name}') for name in ('reorder_convolution_weight', 'convolution_pointwise')
    )


def pack_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """From their next forward on, convolutions keep their weights in the order in which oneDNN multiplies them.

    Else it brings them into that order in each call, a third of the time of a ResNet's forward on a CPU. The order
    depends on the maps' shape: weights are packed where it stays as it is, and lie in plain order where height or width
    change from call to call, as in a head that all levels share. Both orders give the same bits. The packed
    weights take the place of the others, so that no memory is added; ``weight.to_dense()`` has the same numbers. While
    they are packed the model cannot be copied, saved or loaded into: :func:`unpack` it first.

    Args:
        model: A frozen float32 model.

    Returns:
        What was changed, for :func:`unpack`.
    """
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and _is_plain(m) and m.padding_mode == 'zeros']
    convs = [conv for conv in convs if not isinstance(conv.padding, str)]
    for conv in convs:
        conv.forward = _Pointwise(conv)
    return convs


def unpack(convs: Iterable[nn.Conv2d]) -> None:
    """Undo :func:`pack_convolutions`."""
    for conv in convs:
        del conv.forward
        _unpack(conv)


def _unpack(conv: nn.Conv2d) -> None:
    if conv.weight.is_mkldnn:
        # Not contiguous(), which leaves the strides of a 1x1 kernel: the operator goes by strides.
        dense = conv.weight.to_dense().to(memory_format=torch.channels_last)
        conv.weight = nn.Parameter(dense, requires_grad=False)


class _Pointwise:
    """The forward of a convolution by oneDNN's operator, which takes weights in either order."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        self.shape: torch.Size | None = None  # of the last maps, and how many before them had the same
        self.alike, self.patience = 0, 0
        self.packed: torch.Size | None = None  # for maps of this shape

    def __call__(self, input: Tensor) -> Tensor:
        conv = self.conv
        how = conv.padding, conv.stride, conv.dilation, conv.groups
        plain = input.dtype == torch.float32 and input.dim() == 4 and input.numel() > 0
        if not plain or torch.is_autocast_enabled('cpu') or (torch.is_grad_enabled() and input.requires_grad):
            weight = conv.weight.to_dense() if conv.weight.is_mkldnn else conv.weight
            return F.conv2d(input, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        with torch.inference_mode(False):
            self._order(input.shape, how)
        return torch.ops.mkldnn._convolution_pointwise(input, conv.weight, conv.bias, *how, 'none', [], '')

    def _order(self, shape: torch.Size, how: tuple) -> None:
        """Pack for the shape that the last calls had; a map of another size undoes it, and the wait is doubled."""
        self.alike = self.alike + 1 if shape == self.shape else 0
        self.shape = shape
        if self.packed and shape[-2:] != self.packed[-2:]:
            _unpack(self.conv)
            self.packed = None
            self.patience = max(1, 2 * self.patience)
        elif self.packed != shape and self.alike >= self.patience:
            _unpack(self.conv)  # it was packed for another number of images
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.conv.weight, *how, list(shape))
            self.conv.weight = nn.Parameter(weight, requires_grad=False)
            self.packed = shape


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
