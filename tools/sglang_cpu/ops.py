"""The one operator of `sgl_kernel` that is called on a CPU without drafts: the hash behind seeded sampling."""

from __future__ import annotations

import torch

_MASK = 0xFFFFFFFF


def murmur_hash32(seed: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """MurmurHash3 (public domain) of 16 bytes: seed (64 bits), position and column (32 bits each).

    Args:
        seed: 64-bit integers, `[n]`.
        positions: integers, `[n]`.
        columns: integers, `[m]`.

    Returns:
        32-bit hashes as uint32, `[n, m]`.
    """
    bits = seed.view(torch.int64)
    state = torch.zeros_like(bits)
    for block in (bits & _MASK, (bits >> 32) & _MASK, positions.to(torch.int64)):
        state = _mix(state, block)
    state = _mix(state[:, None], columns.to(torch.int64)[None, :]) ^ 16
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = _times(state ^ (state >> shift), factor)
    return state.to(torch.uint32)


def _mix(state: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    block = _times(_rotate(_times(block, 0xCC9E2D51), 15), 0x1B873593)
    return (_times(_rotate(state ^ block, 13), 5) + 0xE6546B64) & _MASK


def _rotate(value: torch.Tensor, bits: int) -> torch.Tensor:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _times(value: torch.Tensor, factor: int) -> torch.Tensor:
    """The low half of the product; in two steps, since 32 times 32 bits overflow a signed 64-bit integer."""
    low, high = factor & 0xFFFF, factor >> 16
    return (value * low + (((value * high) & 0xFFFF) << 16)) & _MASK


def define() -> None:
    """Make it `torch.ops.sgl_kernel.murmur_hash32_cpu`."""
    torch.library.define("sgl_kernel::murmur_hash32_cpu", "(Tensor seed, Tensor positions, Tensor columns) -> Tensor")
    torch.library.impl("sgl_kernel::murmur_hash32_cpu", "cpu", murmur_hash32)
