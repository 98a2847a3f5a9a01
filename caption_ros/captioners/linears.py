# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers in the order that a CPU reads fastest, or in 8 bits.

A decoder's token costs one reading of its weights, and a plain matrix is read at half the
memory's speed. Packing reorders the weights once; int8 makes them a quarter of float32's size.
"""

# torch.jit reads the annotations themselves, so they are not postponed here.
import copy
import re
import warnings
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from caption_ros.captioners.devices import cpu_multiplies, has_amx, has_vnni
from caption_ros.captioners.kernel_linears import (
    KernelInt4Linear,
    KernelInt8Linear,
    KernelLinear,
    fits,
)
from caption_ros.captioners.kernels import has_kernel
from caption_ros.errors import OptionError

_ROWS = 128  # oneDNN's order for so many; that for one is slower with more, and hardly faster
_MANY = 16  # rows, for which candidates take as long as the full layer; see ScreenedHead


class PlainLinear(nn.Module):
    """A linear layer over weights that belong to another module."""

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Take weights, shape (out, in), and a bias, shape (out,), or None."""
        super().__init__()
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return functional.linear(x, self.weight, self.bias)


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's own order of weights, for one CPU.

    It computes in its weights' number type, and returns that of its inputs.

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: Name of their number type.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Pack weights, shape (out, in), with a bias, shape (out,), or None."""
        super().__init__()
        self.packed_numbers = weight.numel()
        self.packed_dtype = str(weight.dtype).removeprefix('torch.')
        self.dtype = weight.dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(
            weight.detach().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        none: list[Optional[Union[int, float, complex]]] = []  # how TorchScript writes Scalar
        return torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.weight, self.bias, 'none', none, '').to(x.dtype)

    def dense(self) -> Tensor:
        """Return the weights, (out, in)."""
        return self.weight.to_dense()


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output, and inputs rounded as they come.

    Its bias and its results are float32. Inputs that come together are rounded in one scale, which
    is that of the largest.

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: int8.
        by_token: Round each of several tokens in a scale of its own; see GreedySearch.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Round weights, shape (out, in), with a bias, shape (out,), or None."""
        super().__init__()
        self.packed_numbers = weight.numel()
        self.packed_dtype = 'int8'
        self.weight = None  # some models ask their layers for its number type
        weight = weight.detach().float()
        scales = (weight.abs().amax(1) / 127).clamp(min=1e-12).double()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch announces the end of these, and has no other
            rounded = torch.quantize_per_channel(
                weight, scales, torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8)
        self.bias = None if bias is None else bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(rounded, self.bias)
        self.by_token = False
        # Without VNNI two products share 16 bits, and inputs of 8 bits would overflow them.
        self.reduce_range = not has_vnni()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        if not self.by_token or x.numel() == x.size(-1):
            return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        size = x.abs().amax(-1, keepdim=True).clamp(min=1e-12)
        most = 63 if self.reduce_range else 127
        result = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / size, 1 / most, most + 1, self.packed)
        return result * size if self.bias is None else torch.lerp(self.bias, result, size)


class ScreenedHead(nn.Module):
    """Logits of a large vocabulary: all of them from 8 bits, those of the likeliest in full.

    A caption on a CPU costs one reading of all weights for each token, and a quarter of GPT-2's
    are here. The candidates are many times more than the 8 bits could put in the wrong order, so
    the likeliest token is the full layer's.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor], candidates: int = 64) -> None:
        """Take weights, shape (vocabulary, width), kept as they are, and a bias or None."""
        super().__init__()
        self.candidates = candidates
        self.many = _MANY
        self.rough = int8_linear(weight, bias)
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach().to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., vocabulary), float32, of (..., width)."""
        if x.numel() // x.size(-1) >= self.many:
            return functional.linear(x, self.weight, self.bias).float()
        rough = self.rough(x.float())
        likeliest = rough.topk(self.candidates)[1]
        exact = torch.matmul(self.weight[likeliest], x.unsqueeze(-1)).squeeze(-1)
        if self.bias is not None:
            exact = exact + self.bias[likeliest]
        return rough.scatter_(-1, likeliest, exact.float())


def int8_linear(weight: Tensor, bias: Optional[Tensor]) -> nn.Module:
    """Return a layer in int8 of weights (out, in), by the kernel if there is one."""
    by_kernel = has_kernel('linear_int8') and fits(weight)
    return KernelInt8Linear(weight, bias) if by_kernel else Int8Linear(weight, bias)


def packed_linear(weight: Tensor, bias: Optional[Tensor]) -> nn.Module:
    """Return a layer of the weights' own number type for few rows, by the kernel if any.

    With AMX oneDNN is as fast, and with many rows faster.
    """
    by_kernel = (weight.dtype == torch.bfloat16 and has_kernel('linear_bfloat16') and fits(weight)
                 and not has_amx())
    return KernelLinear(weight, bias) if by_kernel else PackedLinear(weight, bias)


def is_int8(module: Any) -> bool:
    """Tell whether a module is a linear layer with weights of int8."""
    return getattr(module, 'packed_dtype', '') == 'int8'


def is_wide(module: Any) -> bool:
    """Tell whether a module is a packed linear layer with weights of more than 8 bits."""
    return isinstance(module, (PackedLinear, KernelLinear))


def can_round() -> bool:
    """Tell whether this torch has linear layers of int8."""
    return (_has(torch.ops.quantized, 'linear_dynamic', 'linear_prepack',
                 'linear_with_input_q_dq_qweight_dq_output_fp32')
            and _has(torch, 'quantize_per_channel'))


def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this torch has oneDNN's own order of weights for a number type, on this CPU."""
    has = _has(torch.ops.mkldnn, '_linear_pointwise', '_reorder_linear_weight')
    if dtype == torch.bfloat16:
        return (has and _has(torch.ops.mkldnn, '_is_mkldnn_bf16_supported')
                and cpu_multiplies('bfloat16'))
    return has


def pack_linears(model: nn.Module, *, int8: bool = False, looking: re.Pattern[str] | None = None,
                 wide: bool = False) -> None:
    """Replace the linear layers of a model on the CPU by packed ones, in place.

    Embeddings and convolutions stay as they are; where this torch cannot pack, all do.

    Args:
        model: Model in evaluation mode, in float32 or bfloat16.
        int8: Round the weights to int8; the model must be in float32.
        looking: Finds the names of layers that look at an image, whose rows are always many.
        wide: With int8, pack these in bfloat16 all the same; needs can_pack.

    Raises:
        OptionError: If int8 is asked for and this torch cannot do it.
    """
    if int8 and not can_round():
        raise OptionError("dtype 'int8' needs torch's quantized linear layers, which torch "
                          f'{torch.__version__} does not have here; use auto')
    for name, layer in list(model.named_modules()):
        weights = linear_weights(layer)
        if weights is None:
            continue
        looks = looking is not None and looking.search(name)
        if looks and wide:
            packed: nn.Module = PackedLinear(*(
                each if each is None else each.to(torch.bfloat16) for each in weights))
        elif int8:
            packed = int8_linear(*weights)
        elif can_pack(weights[0].dtype):
            packed = PackedLinear(*weights) if looks else packed_linear(*weights)
        else:
            continue
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, packed)


def linear_weights(module: nn.Module) -> Optional[tuple[Tensor, Optional[Tensor]]]:
    """Return weight (out, in) and bias of a plain linear layer, None for any other module."""
    if type(module) is nn.Linear:
        return module.weight, module.bias
    if type(module).__name__ == 'Conv1D' and hasattr(module, 'nf'):  # GPT-2's, (in, out)
        return module.weight.t(), module.bias
    return None


def as_linear(module: Any) -> nn.Module:
    """Return a linear layer that torch.jit can compile; it shares the module's weights."""
    weights = linear_weights(module)
    return module if weights is None else PlainLinear(*weights)


def rounded(module: nn.Module) -> nn.Module:
    """Return a module of packed layers as one of fewer bits that takes and returns float32.

    Its packed layers are rounded to int8, kernels' layers of int8 to 4 bits, a screened head is
    its rough part, and all else is copied in float32.
    """
    if is_wide(module):
        return int8_linear(module.dense(), module.bias)
    if isinstance(module, KernelInt8Linear):
        return KernelInt4Linear(module.slices(), module.bias)
    if isinstance(module, ScreenedHead):
        return module.rough
    copied = copy.copy(module)
    copied._modules = {name: rounded(child) for name, child in module.named_children()}
    copied._parameters = {name: None if weight is None else nn.Parameter(weight.float(), False)
                          for name, weight in module._parameters.items()}
    return copied


def _has(namespace: Any, *names: str) -> bool:
    return all(hasattr(namespace, name) for name in names)
