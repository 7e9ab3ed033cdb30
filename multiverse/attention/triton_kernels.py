"""Triton kernels for passes of a decode step: attention of a chunk, and the merge of what a query's chunks found.

Not run on a GPU. `triton_decode` lays out what they read; here are no lists, no hosts, no decisions.
"""

# Triton's types are no Python's, and its constants have capitals:
# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: N803

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_chunk(
    query, key, value, table, rows, chunks, queries, found, lse, scale,
    query_row, query_head, key_page, key_slot, key_head, value_page, value_slot, value_head, table_row,
    SHARE: tl.constexpr, WIDTH: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One KV head of one chunk: all heads of all its queries that read this KV head are rows of one matrix.

    Writes `found`, float32 `[parts, heads, width]`, and `lse`, the log-sum-exp of base 2, `[parts, heads]`.
    """
    at, kv_head, kv_heads = chunks + tl.program_id(0) * 5, tl.program_id(1), tl.num_programs(1)
    first, count, row, start, stop = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)
    line, column = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    part, head = first + line // SHARE, kv_head * SHARE + line % SHARE
    live, inside = line // SHARE < count, column < WIDTH
    which = tl.load(queries + part, mask=live, other=0).to(tl.int64)
    q_at = which[:, None] * query_row + head[:, None] * query_head + column[None, :]
    q = tl.load(query + q_at, mask=live[:, None] & inside[None, :], other=0.0)
    slots_of = table + tl.load(rows + row) * table_row
    top, total = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    output = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for begin in range(start, stop, BLOCK_N):
        slot = begin + tl.arange(0, BLOCK_N)
        seen = slot < stop
        page, offset = tl.load(slots_of + slot // PAGE, mask=seen, other=0).to(tl.int64), slot % PAGE
        k_at = page * key_page + offset * key_slot + kv_head * key_head
        keys = tl.load(key + k_at[None, :] + column[:, None], mask=seen[None, :] & inside[:, None], other=0.0)
        scores = tl.dot(q, keys.to(q.dtype), input_precision="ieee") * (scale * 1.4426950408889634)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        weights, before = tl.exp2(scores - higher[:, None]), tl.exp2(top - higher)
        v_at = page * value_page + offset * value_slot + kv_head * value_head
        values = tl.load(value + v_at[:, None] + column[None, :], mask=seen[:, None] & inside[None, :], other=0.0)
        output = output * before[:, None] + tl.dot(weights.to(q.dtype), values.to(q.dtype), input_precision="ieee")
        total, top = total * before + tl.sum(weights, 1), higher
    to = part.to(tl.int64) * (kv_heads * SHARE) + head
    tl.store(
        found + to[:, None] * WIDTH + column[None, :], output / total[:, None], mask=live[:, None] & inside[None, :]
    )
    tl.store(lse + to, top + tl.log2(total), mask=live)


@triton.jit
def merge_parts(
    found, lse, starts, parts, output, output_row, output_head,
    WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One head of one query: `parts[starts[query] : starts[query + 1]]` by their log-sum-exp; zeros if none."""
    query, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.arange(0, BLOCK_D)
    inside = column < WIDTH
    top, total, merged = float("-inf"), 0.0, tl.zeros([BLOCK_D], tl.float32)
    for at in range(tl.load(starts + query), tl.load(starts + query + 1)):
        part = tl.load(parts + at).to(tl.int64) * heads + head
        one = tl.load(lse + part)
        higher = tl.maximum(top, one)
        before, weight = tl.exp2(top - higher), tl.exp2(one - higher)
        merged = merged * before + tl.load(found + part * WIDTH + column, mask=inside, other=0.0) * weight
        total, top = total * before + weight, higher
    merged = merged / tl.where(total == 0.0, 1.0, total)
    to = output + query.to(tl.int64) * output_row + head * output_head + column
    tl.store(to, merged.to(output.dtype.element_ty), mask=inside)
