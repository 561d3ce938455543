"""What holds for every grid, window and shift."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_swin.modeling_windows import partition, region_ids, relative_index, separated, unpartition, window_layout


CPU = torch.device("cpu")
sides = st.integers(1, 13)
pairs = st.tuples(sides, sides)
layouts = st.builds(
    window_layout,
    grid=pairs,
    window=pairs,
    shifted=st.booleans(),
    rule=st.sampled_from(["clamp", "pad", "fixed", "always"]),
    home_grid=pairs,
)
settings.register_profile("default", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("default")


@given(layouts, st.integers(1, 3), st.integers(1, 4))
def test_unpartition_inverts_partition(layout, batch, channels):
    grid = torch.randn(batch, *layout.grid, channels)
    windows = partition(grid, layout)
    per_image = (layout.padded[0] // layout.window[0]) * (layout.padded[1] // layout.window[1])
    assert windows.shape == (batch * per_image, layout.window[0] * layout.window[1], channels)
    assert torch.equal(unpartition(windows, layout), grid)


@given(layouts)
def test_padding_is_less_than_a_window_and_shift_less_than_half_of_one(layout):
    for size, padded, side, shift in zip(layout.grid, layout.padded, layout.window, layout.shift, strict=True):
        assert padded % side == 0 and 0 <= padded - size < side and 0 <= shift <= side // 2


@given(pairs, pairs, st.booleans())
def test_a_clamped_window_is_never_larger_than_the_grid(grid, window, shifted):
    layout = window_layout(grid, window, shifted, "clamp", grid)
    assert all(side <= size for side, size in zip(layout.window, grid, strict=True))
    assert all(shift == 0 or size > side for shift, size, side in zip(layout.shift, grid, window, strict=True))


@given(layouts, st.booleans())
def test_tokens_may_meet_only_if_they_were_neighbours_before_the_roll(layout, mask_padding):
    """Two tokens of one window and one region lie as far apart in the picture as they do in the window."""
    places = torch.stack(
        torch.meshgrid(torch.arange(layout.padded[0]), torch.arange(layout.padded[1]), indexing="ij"), dim=-1
    )
    padded = layout._replace(grid=layout.padded)
    origin = partition(places[None], padded).long()  # where each token of each window comes from
    within = partition(places[None], padded._replace(shift=(0, 0)))[0]
    apart = (origin[:, :, None] - origin[:, None, :]).abs()
    expected = (within[:, None] - within[None, :]).abs()
    may_meet = (apart == expected).all(-1)
    forbidden = separated(layout, False, CPU)
    allowed = torch.ones_like(may_meet) if forbidden is None else ~forbidden.squeeze(1)
    assert torch.all(may_meet | ~allowed)
    if mask_padding and layout.padded != layout.grid:
        real = (origin < torch.tensor(layout.grid)).all(-1)
        forbidden = separated(layout, True, CPU).squeeze(1)
        assert torch.all(forbidden | (real[:, :, None] == real[:, None, :]))


@given(layouts, st.booleans())
def test_every_token_may_see_itself(layout, mask_padding):
    forbidden = separated(layout, mask_padding, CPU)
    assert forbidden is None or not forbidden.diagonal(dim1=-2, dim2=-1).any()


@given(layouts)
def test_there_are_at_most_nine_regions(layout):
    ids = region_ids(layout, False, CPU)
    shifted_axes = sum(shift > 0 for shift in layout.shift)
    assert ids.unique().numel() <= 3**shifted_axes


@given(pairs, st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_relative_index_depends_on_the_offset_alone(window, extra):
    table_window = (window[0] + extra[0], window[1] + extra[1])
    index = relative_index(window, table_window, CPU)
    rows = torch.arange(window[0]).repeat_interleave(window[1])
    columns = torch.arange(window[1]).repeat(window[0])
    offset_rows = rows[:, None] - rows[None] + table_window[0] - 1
    offset_columns = columns[:, None] - columns[None] + table_window[1] - 1
    assert torch.equal(index // (2 * table_window[1] - 1), offset_rows)
    assert torch.equal(index % (2 * table_window[1] - 1), offset_columns)
    assert index.min() >= 0 and index.max() < (2 * table_window[0] - 1) * (2 * table_window[1] - 1)
