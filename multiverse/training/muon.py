"""Muon for the matrices, AdamW for the rest, as one optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

MOMENTUM = 0.95


def orthogonal(matrix: Tensor) -> Tensor:
    """About the orthogonal factor of `matrix`: its singular values become 0.7 to 1.2, by five Newton-Schulz steps.

    As `torch.optim.Muon` computes it, but in float32. There it is bfloat16, which a CPU without such instructions
    emulates: a step of 384 x 192 took 132 ms of one core, this one takes 10.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide.float() / wide.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


class Muon(Optimizer):
    """The step of `torch.optim.Muon` with Nesterov momentum, for 2-D weights."""

    def __init__(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # nothing asks for a closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group["lr"], group["weight_decay"])

    def _move(self, weight: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"]
        momentum.lerp_(weight.grad, 1 - MOMENTUM)
        direction = orthogonal(weight.grad.lerp(momentum, MOMENTUM))
        taller = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
        weight.mul_(1 - rate * decay).add_(direction, alpha=-rate * taller)


class MuonAdamW(Optimizer):
    """What a trainer, a schedule and a checkpoint take for one optimiser; each parameter is stepped by one of two.

    Args:
        model: a causal LM. Its 2-D weights but the embeddings and the output rows go to Muon, all else to AdamW.
        matrix_rate: Muon's learning rate.
        rate: AdamW's.
        weight_decay: of the matrices; nothing else decays.
    """

    def __init__(self, model: Any, matrix_rate: float, rate: float, weight_decay: float) -> None:
        ends = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
        learnt = [weight for weight in model.parameters() if weight.requires_grad]
        matrices = [weight for weight in learnt if weight.ndim == 2 and id(weight) not in ends]
        others = [weight for weight in learnt if weight.ndim != 2 or id(weight) in ends]
        self.parts: list[Optimizer] = [
            Muon(matrices, matrix_rate, weight_decay),
            AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The very groups of both: a schedule that sets a rate here sets it there."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self, _closure: None = None) -> None:
        """Step both."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, for `load_state_dict`."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()  # loading replaced them
