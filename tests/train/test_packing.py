"""The layout of a pass, by the example in the module's text."""

import numpy as np
import pytest
import torch

from webdancer.train.packing import Block, Piece, Queries, all_tokens, lay_out


def example() -> Queries:
    """Rows 0, 1 and 3 bring 1, 3 and 2 queries from the positions 7, 20 and 4 on."""
    return Queries.of(
        np.array([0, 1, 3]), np.array([7, 20, 4]), np.array([1, 3, 2]), np.array([50, 60, 61, 62, 70, 71])
    )


def test_queries_are_packed_row_after_row() -> None:
    queries = example()
    assert queries.rows.tolist() == [0, 1, 1, 1, 3, 3]
    assert queries.positions.tolist() == [7, 20, 21, 22, 4, 5]
    assert queries.offsets.tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("sampled", "expected"),
    [
        ([9, 61, 62, 9, 71, 9], [0, 2, 1]),  # all drafts hold
        ([9, 61, 9, 9, 9, 9], [0, 1, 0]),
        ([60, 9, 62, 70, 71, 9], [0, 0, 1]),  # a row's last token says nothing of the next row's first
        ([9, 9, 62, 9, 9, 9], [0, 0, 0]),  # what holds behind one that does not is not kept
    ],
)
def test_drafts_hold_up_to_the_first_that_differs(sampled: list[int], expected: list[int]) -> None:
    assert example().num_right(np.array(sampled)).tolist() == expected


def test_places_of_attention() -> None:
    layout = lay_out(example(), [Block(0, 4, 32, 3)], torch.device("cpu"))
    assert layout.sources.tolist() == [0, 0, 0, 1, 2, 3, 0, 0, 0, 4, 5, 0]
    assert layout.positions.tolist() == [7, 0, 0, 20, 21, 22, 0, 0, 0, 4, 5, 0]
    assert layout.places.tolist() == [0, 3, 4, 5, 9, 10]


def test_places_in_two_blocks_of_different_width() -> None:
    layout = lay_out(example(), [Block(0, 2, 32, 3), Block(3, 4, 16, 2)], torch.device("cpu"))
    assert layout.sources.tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert layout.places.tolist() == [0, 3, 4, 5, 6, 7]


def test_pieces_come_behind_the_queries() -> None:
    ids, rows, positions = all_tokens(example(), [Piece(2, 30, [8, 9]), Piece(5, 0, [4])])
    assert ids.tolist() == [50, 60, 61, 62, 70, 71, 8, 9, 4]
    assert rows.tolist() == [0, 1, 1, 1, 3, 3, 2, 2, 5]
    assert positions.tolist() == [7, 20, 21, 22, 4, 5, 30, 31, 0]
