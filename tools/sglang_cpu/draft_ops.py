"""The functions of `sgl_kernel` that SGLang calls on a CPU to verify drafts (speculative decoding), in plain torch.

Drafts of a row are a tree of `n` tokens whose first is the row's last one. Trees are told by links, -1 where there is
none: from a token to its first child, and to its next sibling.
"""

from __future__ import annotations

import ctypes

import torch


def assign_extend_cache_locs_cpu(
    rows: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, found: torch.Tensor, _: int
) -> None:
    """Write `table[row, start:end]` of all rows, one after the other, to the beginning of `found`."""
    parts = [table[row, start:end] for row, start, end in _ranges(rows, starts, ends)]
    slots = torch.cat(parts)
    found[: len(slots)] = slots


def assign_req_to_token_pool_cpu(
    rows: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, slots: torch.Tensor, _: int
) -> None:
    """Write `slots` to `table[row, start:end]` of all rows, one after the other."""
    first = 0
    for row, start, end in _ranges(rows, starts, ends):
        table[row, start:end] = slots[first : first + end - start]
        first += end - start


def _ranges(rows: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor) -> list[tuple[int, int, int]]:
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def fill_accept_out_cache_loc_cpu(accepted: torch.Tensor, slots: torch.Tensor, found: torch.Tensor) -> None:
    """Write the slots of accepted tokens, of all rows, to the beginning of `found`; -1 is no token."""
    indices = accepted.flatten()
    indices = indices[indices >= 0].long()
    found[: len(indices)] = slots[indices]


def copy_all_layer_kv_cache_cpu(
    addresses: torch.Tensor, strides: torch.Tensor, targets: torch.Tensor, sources: torch.Tensor, *_: int
) -> None:
    """Copy tokens within each of the buffers at `addresses`, whose tokens are so many bytes apart."""
    pairs = [pair for pair in zip(targets.tolist(), sources.tolist(), strict=True) if pair[0] != pair[1]]
    for address, stride in zip(addresses.tolist(), strides.tolist(), strict=True):
        held = [(target, ctypes.string_at(address + source * stride, stride)) for target, source in pairs]
        for target, token in held:
            ctypes.memmove(address + target * stride, token, stride)


def reconstruct_indices_from_tree_mask(
    mask: torch.Tensor,
    lengths: torch.Tensor,
    positions: torch.Tensor,
    indices: torch.Tensor,
    children: torch.Tensor,
    siblings: torch.Tensor,
    rows: int,
    count: int,
) -> None:
    """Fill in what follows from `mask`, which says of each token which ones are its ancestors, or it itself.

    Args:
        lengths: tokens of each row that are there already.
        positions: get the positions of the drafts, `[rows x count]`.
        indices: get their numbers among all drafts, `[rows, count]`.
        children, siblings: get the links, likewise.
    """
    ancestors = mask.view(rows, count, count).tril(-1)
    positions.copy_((ancestors.sum(-1) + lengths[:, None]).flatten())
    indices.copy_(torch.arange(rows * count).view(rows, count))
    order = torch.arange(count)
    parents = torch.where(ancestors, order, -1).amax(-1)
    linked = (parents[:, :, None] == order) & (parents[:, :, None] >= 0)  # [rows, child, parent]
    children.copy_(_first(linked.transpose(1, 2)))
    alike = (parents[:, :, None] == parents[:, None]) & (parents[:, :, None] >= 0) & (order > order[:, None])
    siblings.copy_(_first(alike))


def _first(chosen: torch.Tensor) -> torch.Tensor:
    """The first index of the last dimension that is chosen, or -1."""
    return torch.where(chosen.any(-1), chosen.int().argmax(-1), -1)


def verify_tree_greedy_cpu(
    *,
    predicts: torch.Tensor,
    accept_index: torch.Tensor,
    accept_token_num: torch.Tensor,
    candidates: torch.Tensor,
    retrive_index: torch.Tensor,
    retrive_next_token: torch.Tensor,
    retrive_next_sibling: torch.Tensor,
    target_predict: torch.Tensor,
) -> None:
    """Accept, row by row, drafts for as long as the model says the same.

    Args:
        predicts: gets, by the number of an accepted token, what the model says behind it.
        accept_index: gets the numbers of the accepted tokens of each row, its last one first; the rest stays.
        accept_token_num: gets how many drafts of each row that are.
        candidates: the drafts, `[rows, count]`.
        retrive_index: their numbers; `retrive_next_token` and `retrive_next_sibling` the links.
        target_predict: what the model says behind each.
    """
    for row in range(len(candidates)):
        at, accepted = 0, [int(retrive_index[row, 0])]
        while True:
            said = int(target_predict[row, at])
            predicts[retrive_index[row, at]] = said
            draft = int(retrive_next_token[row, at]) if len(accepted) < accept_index.shape[1] else -1
            while draft >= 0 and int(candidates[row, draft]) != said:
                draft = int(retrive_next_sibling[row, draft])
            if draft < 0:
                break
            at = draft
            accepted.append(int(retrive_index[row, at]))
        accept_index[row, : len(accepted)] = torch.tensor(accepted, dtype=accept_index.dtype)
        accept_token_num[row] = len(accepted) - 1


FUNCTIONS = {
    "sgl_kernel": {
        function.__name__: function
        for function in (
            assign_extend_cache_locs_cpu,
            assign_req_to_token_pool_cpu,
            copy_all_layer_kv_cache_cpu,
            fill_accept_out_cache_loc_cpu,
            verify_tree_greedy_cpu,
        )
    },
    "sgl_kernel.speculative": {"reconstruct_indices_from_tree_mask": reconstruct_indices_from_tree_mask},
}
"""By module, what is defined in it."""
