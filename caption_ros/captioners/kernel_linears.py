# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Linear layers by the kernels of kernels.cpp.

Of each row the result is the same whatever other rows there are, to the last bit.
"""

# torch.jit reads the annotations themselves, so they are not postponed here.
from collections.abc import Iterable, Iterator
from typing import Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

_OUTS = 64  # outputs whose weights lie side by side
_SLICE = 64 * _OUTS  # outputs to round at a time
_GROUP = 64  # inputs of 4-bit weights that have a scale
_MOST_INS = 32_768  # for which sums of 8-bit products fit into 32 bits


class KernelLinear(nn.Module):
    """A linear layer in bfloat16; it returns the number type of its inputs.

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: Name of their number type.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Take weights, (out, in), that fits() accepts, and a bias, (out,), or None."""
        super().__init__()
        self.packed_numbers = weight.numel()
        self.packed_dtype = 'bfloat16'
        self.dtype = torch.bfloat16
        self.outs = len(weight)
        self.weight = _in_order(weight.detach().to(torch.bfloat16), 2)
        self.bias = _floats(bias, self.outs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return torch.ops.caption_ros.linear_bfloat16(
            x.to(torch.bfloat16).contiguous(), self.weight, self.bias, self.outs).to(x.dtype)

    def dense(self) -> Tensor:
        """Return the weights, (out, in)."""
        return _as_matrix(self.weight, self.outs)


class KernelInt8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output and one for each row of inputs.

    It takes and returns float32.

    Attributes:
        packed_numbers: How many weights it holds; they are no parameters.
        packed_dtype: int8.
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        """Round weights, (out, in), that fits() accepts; take a bias, (out,), or None."""
        super().__init__()
        self.packed_numbers = weight.numel()
        self.packed_dtype = 'int8'
        self.weight = None  # some models ask their layers for its number type
        self.outs = len(weight)
        scales, totals, packed = [], [], []
        for part in weight.detach().split(_SLICE):  # a vocabulary takes a lot of memory in float32
            part = part.float()
            scales.append((part.abs().amax(1) / 127).clamp(min=1e-12))
            rounded = (part / scales[-1][:, None]).round_().clamp_(-127, 127)
            totals.append(rounded.sum(1))
            packed.append(_in_order(rounded.add_(128).to(torch.uint8), 4))
        self.scales, self.totals, self.packed = map(torch.cat, (scales, totals, packed))
        self.bias = _floats(bias, self.outs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return torch.ops.caption_ros.linear_int8(x.contiguous(), self.packed, self.scales,
                                                 self.totals, self.bias, self.outs)

    def slices(self) -> Iterator[Tensor]:
        """Yield the weights as they were rounded, (some of out, in), in float32."""
        for packed, scales in zip(self.packed.split(_SLICE // _OUTS), self.scales.split(_SLICE)):
            yield (_as_matrix(packed, len(scales)).float() - 128) * scales[:, None]


class KernelInt4Linear(nn.Module):
    """A linear layer with weights of 4 bits, a scale for 64 of each output, for drafts.

    It takes and returns float32, and rounds each row of inputs to 8 bits.
    """

    def __init__(self, weight: Union[Tensor, Iterable[Tensor]], bias: Optional[Tensor]) -> None:
        """Round weights, (out, in), that fits() accepts; take a bias, (out,), or None.

        Weights may come in slices of some outputs, 64 or a multiple of that but for the last.
        """
        super().__init__()
        self.outs, self.ins = 0, 0
        scales, packed = [], []
        for part in weight.split(_SLICE) if isinstance(weight, Tensor) else weight:
            part = part.detach()
            self.outs, self.ins = self.outs + len(part), part.size(1)
            groups = functional.pad(part.float(), [0, -self.ins % _GROUP, 0, -len(part) % _OUTS])
            groups = groups.reshape(-1, _OUTS, groups.size(1) // _GROUP, _GROUP)
            scale = (groups.abs().amax(-1) / 7).clamp(min=1e-12).to(torch.bfloat16)
            rounded = (groups / scale.float()[..., None]).round_().clamp_(-7, 7).add_(8)
            pairs = rounded.to(torch.uint8).unflatten(3, [-1, 2, 4])
            both = pairs[..., 0, :] | pairs[..., 1, :] << 4  # (blocks, 64, groups, 8, 4)
            packed.append(both.permute(0, 2, 3, 1, 4).flatten(3).contiguous())
            scales.append(scale.transpose(1, 2).contiguous())
        self.scales, self.packed = torch.cat(scales), torch.cat(packed)
        self.bias = _floats(bias, self.outs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return torch.ops.caption_ros.linear_int4(x.contiguous(), self.packed, self.scales,
                                                 self.bias, self.ins, self.outs)

    def dense(self) -> Tensor:
        """Return the weights as they were rounded, (out, in), in float32."""
        both = self.packed.unflatten(3, [_OUTS, 4]).permute(0, 3, 1, 2, 4)
        pairs = torch.stack([both & 15, both >> 4], -2).flatten(3).float() - 8
        weight = pairs * self.scales.float().transpose(1, 2)[..., None]
        return weight.flatten(2).flatten(0, 1)[:self.outs, :self.ins]


def seen_size(tokens: int, depth: int) -> int:
    """Return how many numbers order_seen of kernels.cpp makes of a head of an image.

    Args:
        tokens: Encoder tokens.
        depth: Width of a head, even.
    """
    return (-(-tokens // 64) * 64 * depth) + (-(-depth // 64) * 64 * (tokens + tokens % 2))


def fits(weight: Tensor) -> bool:
    """Tell whether the kernels take weights of this shape, (out, in)."""
    return weight.dim() == 2 and weight.size(1) % 4 == 0 and 0 < weight.size(1) <= _MOST_INS


def _in_order(weight: Tensor, together: int) -> Tensor:
    """Return weights (out, in) as kernels read them, (out / 64, in / together, 64, together)."""
    ins = weight.size(1)
    padded = functional.pad(weight, [0, 0, 0, -len(weight) % _OUTS])
    return padded.reshape(-1, _OUTS, ins // together, together).transpose(1, 2).contiguous()


def _as_matrix(weight: Tensor, outs: int) -> Tensor:
    """Return (out, in) of what _in_order() made."""
    return weight.transpose(1, 2).flatten(2).flatten(0, 1)[:outs]


def _floats(bias: Optional[Tensor], outs: int) -> Tensor:
    return torch.zeros(outs) if bias is None else bias.detach().float()
