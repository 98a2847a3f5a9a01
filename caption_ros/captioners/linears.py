# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers in the order that a CPU reads fastest, or in 8 bits.

A decoder's token costs one reading of its weights, and a plain matrix is read at half the
memory's speed. Packing reorders the weights once; int8 makes them a quarter of float32's size.
"""

# torch.jit reads the annotations themselves, so they are not postponed here.
import warnings
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from caption_ros.errors import OptionError


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

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: Name of their number type.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Pack weights, shape (out, in), with a bias, shape (out,), or None."""
        super().__init__()
        self.packed_numbers = weight.numel()
        self.packed_dtype = str(weight.dtype).removeprefix('torch.')
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 1)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        none: list[Optional[Union[int, float, complex]]] = []  # how TorchScript writes Scalar
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, 'none', none, '')


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output, and inputs rounded as they come.

    Its bias and its results are float32.

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: int8.
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
        self.packed = torch.ops.quantized.linear_prepack(
            rounded, None if bias is None else bias.detach().float())
        # Without VNNI two products share 16 bits, and inputs of 8 bits would overflow them.
        self.reduce_range = not has_vnni()

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)


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
        self.rough = Int8Linear(weight, bias)
        self.weight = weight.detach()
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, vocabulary), float32, of (rows, width)."""
        rough = self.rough(x.float())
        likeliest = rough.topk(self.candidates)[1]
        exact = torch.bmm(self.weight[likeliest], x.unsqueeze(-1)).squeeze(-1)
        if self.bias is not None:
            exact = exact + self.bias[likeliest]
        return rough.scatter(-1, likeliest, exact.float())


def has_vnni() -> bool:
    """Tell whether this CPU multiplies 8-bit numbers in hardware without overflow."""
    # A private name, so a torch that drops it costs a little accuracy only.
    test = getattr(torch.cpu, '_is_vnni_supported', None)
    return test is not None and bool(test())


def pack_linears(model: nn.Module, *, int8: bool = False) -> None:
    """Replace the linear layers of a model on the CPU by packed ones, in place.

    Embeddings and convolutions stay as they are; where this torch cannot pack, all do.

    Args:
        model: Model in evaluation mode, in float32 or bfloat16.
        int8: Round the weights to int8; the model must be in float32.

    Raises:
        OptionError: If int8 is asked for and this torch cannot do it.
    """
    kind = Int8Linear if int8 else PackedLinear
    if int8 and not _has(torch.ops.quantized, 'linear_dynamic', 'linear_prepack'):
        raise OptionError("dtype 'int8' needs torch's quantized linear layers, which torch "
                          f'{torch.__version__} does not have here; use auto')
    if not int8 and not _has(torch.ops.mkldnn, '_linear_pointwise', '_reorder_linear_weight'):
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            weights = linear_weights(child)
            if weights is not None:
                setattr(parent, name, kind(*weights))


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


def _has(namespace: Any, *names: str) -> bool:
    return all(hasattr(namespace, name) for name in names)
