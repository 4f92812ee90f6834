"""Merging records: by key, and as if all samples had been in one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from onnx_relief.activity.mean import Mean
from onnx_relief.activity.record import Record

ONE = Record({"a": Mean(np.array([1.0, 2.0]), 2)}, {"a": Counter({(4, 4): 2})})
OTHER = Record(
    {"a": Mean(np.array([5.0, 1.0]), 1), "b": Mean(np.array([7.0]), 1)},
    {"a": Counter({(4, 4): 1, (5, 5): 3}), "b": Counter({(): 1})},
)


@pytest.mark.parametrize("both", [ONE.merge(OTHER), OTHER.merge(ONE)])
def test_means_and_sizes_are_merged_by_key(both: Record) -> None:
    assert both.means.keys() == both.sizes.keys() == {"a", "b"}
    np.testing.assert_array_equal(both.means["a"].finish(), [2, 1])
    np.testing.assert_array_equal(both.means["b"].finish(), [7])
    assert both.sizes == {"a": Counter({(4, 4): 3, (5, 5): 3}), "b": Counter({(): 1})}


def test_merging_changes_neither() -> None:
    ONE.merge(OTHER)
    assert ONE.sizes == {"a": Counter({(4, 4): 2})}
    np.testing.assert_array_equal(ONE.means["a"].total, [1, 2])


def test_an_empty_record_changes_nothing() -> None:
    for same in (Record().merge(ONE), ONE.merge(Record())):
        assert same.sizes == ONE.sizes
        np.testing.assert_array_equal(same.means["a"].finish(), [0.5, 1])


def test_merging_is_associative() -> None:
    left, right = ONE.merge(OTHER).merge(OTHER), ONE.merge(OTHER.merge(OTHER))
    assert left.sizes == right.sizes
    for key, mean in left.means.items():
        np.testing.assert_array_equal(mean.finish(), right.means[key].finish())
