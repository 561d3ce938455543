"""Windows on integers, worked out by hand."""

import torch

from hf_swin.modeling_windows import (
    WindowLayout,
    log_offsets,
    partition,
    region_ids,
    relative_index,
    separated,
    unpartition,
    window_layout,
)


CPU = torch.device("cpu")


def layout_of(grid, window=(7, 7), shifted=True, rule="clamp", home_grid=(56, 56)):
    return window_layout(grid, window, shifted, rule, home_grid)


def test_partition_cuts_rows_of_windows():
    grid = torch.arange(16).reshape(1, 4, 4, 1)
    windows = partition(grid, WindowLayout((4, 4), (2, 2), (0, 0)))
    assert windows.squeeze(-1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_partition_of_a_rectangle_pads_at_the_end_and_then_rolls():
    grid = torch.arange(1, 7).reshape(1, 2, 3, 1)
    padded = partition(grid, WindowLayout((2, 3), (2, 2), (0, 0))).squeeze(-1)
    assert padded.tolist() == [[1, 2, 4, 5], [3, 0, 6, 0]]
    rolled = partition(grid, WindowLayout((2, 3), (2, 2), (0, 1))).squeeze(-1)
    assert rolled.tolist() == [[2, 3, 5, 6], [0, 1, 0, 4]]


def test_regions_are_the_nine_of_the_paper():
    ids = region_ids(WindowLayout((4, 4), (2, 2), (1, 1)), False, CPU)
    assert ids.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]]


def test_padded_tokens_are_a_region_of_their_own_if_asked():
    ids = region_ids(WindowLayout((3, 4), (2, 2), (0, 0)), True, CPU)
    assert ids.tolist() == [[0, 0, 0, 0]] * 3 + [[9] * 4]
    assert separated(WindowLayout((3, 4), (2, 2), (0, 0)), False, CPU) is None


def test_separated_tokens_are_those_of_different_regions():
    forbidden = separated(WindowLayout((4, 4), (2, 2), (1, 1)), False, CPU)
    assert forbidden.shape == (4, 1, 4, 4)
    assert not forbidden[0].any()  # the first window holds one region
    assert forbidden[3, 0].equal(~torch.eye(4, dtype=torch.bool))  # the last holds four


def test_relative_index_is_query_minus_key():
    index = relative_index((2, 2), (2, 2), CPU)
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_a_smaller_window_uses_the_same_row_for_the_same_offset():
    large = relative_index((3, 3), (3, 3), CPU)
    small = relative_index((2, 2), (3, 3), CPU)
    kept = torch.tensor([0, 1, 3, 4])  # the upper left 2x2 of a 3x3 window
    assert torch.equal(small, large[kept][:, kept])


def test_log_offsets_reach_one_at_the_far_edge():
    offsets = log_offsets((8, 8), (8, 8), CPU)
    assert offsets.shape == (225, 2)
    assert torch.allclose(offsets[0], -torch.log2(torch.tensor([9.0, 9.0])) / 3)
    assert torch.equal(offsets[112], torch.zeros(2))
    assert torch.allclose(log_offsets((16, 16), (8, 8), CPU).max(), torch.log2(torch.tensor(1 + 15 * 8 / 7)) / 3)


def test_windows_that_fit():
    assert layout_of((56, 56)) == ((56, 56), (7, 7), (3, 3))
    assert layout_of((56, 56), shifted=False) == ((56, 56), (7, 7), (0, 0))
    assert layout_of((10, 15)).padded == (14, 21)


def test_rules_where_the_window_is_not_smaller_than_the_grid():
    assert layout_of((7, 7)) == ((7, 7), (7, 7), (0, 0))
    assert layout_of((5, 14)) == ((5, 14), (5, 7), (0, 3))
    assert layout_of((5, 14), rule="square") == ((5, 14), (5, 5), (0, 0))
    assert layout_of((5, 14), rule="pad") == ((5, 14), (7, 7), (0, 3))
    assert layout_of((5, 14), rule="always") == ((5, 14), (7, 7), (3, 3))
    assert layout_of((5, 14), rule="fixed") == ((5, 14), (7, 7), (3, 3))
    assert layout_of((14, 14), rule="fixed", home_grid=(7, 7)) == ((14, 14), (7, 7), (0, 0))


def test_the_cache_survives_inference_mode():
    layout = WindowLayout((6, 6), (3, 3), (1, 1))
    with torch.inference_mode():
        separated(layout, False, CPU)
    scores = torch.zeros(4, 1, 9, 9, requires_grad=True)
    scores.masked_fill(separated(layout, False, CPU), -1.0).sum().backward()
    assert scores.grad is not None


def test_unpartition_inverts_partition():
    layout = WindowLayout((5, 9), (4, 3), (2, 1))
    grid = torch.randn(2, 5, 9, 3)
    assert torch.equal(unpartition(partition(grid, layout), layout), grid)
