"""Laws of cutting channels, on networks that are drawn at random."""

from __future__ import annotations

import numpy as np
from drawn import networks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cut import Traced, feed_for
from text_models import assert_outputs_agree, run

from onnx_relief.compaction.compact import compact
from onnx_relief.graph.document import check
from onnx_relief.graph.rewrite import write_constants
from onnx_relief.graph.views import Constants

drawing = settings(deadline=None, suppress_health_check=list(HealthCheck))


def feeds(model):
    """Return batches of other sizes than the one that was traced; the second takes other ways."""
    feed = feed_for(model, rows=3, seed=1)
    return feed, {name: -array[:1] for name, array in feed.items()}


@settings(drawing, max_examples=40)
@given(networks(), st.booleans(), st.data())
def test_cutting_is_masking(network, outer, data):
    model = Traced(network, outer=outer)
    some = st.sets(st.sampled_from(model.roots)) if model.roots else st.just(set())
    gone = model.gone(data.draw(some))
    smaller, masked = model.cut(gone), model.masked(gone)
    check(smaller)
    assert smaller.proto.graph.input == network.graph.input
    assert smaller.proto.graph.output == network.graph.output
    for feed in feeds(network):
        assert_outputs_agree(masked.proto, smaller.proto, feed, rtol=1e-4, atol=1e-5)


@settings(drawing, max_examples=20)
@given(networks(), st.data())
def test_any_single_group_can_go(network, data):
    model = Traced(network)
    if not model.roots:
        return
    gone = model.gone([data.draw(st.sampled_from(model.roots))])
    smaller = model.cut(gone)
    check(smaller)
    before, after = (run(one, feeds(network)[0]) for one in (network, smaller.proto))
    assert [array.shape for array in before] == [array.shape for array in after]


@settings(drawing, max_examples=20)
@given(networks(), st.integers(0, 1 << 16))
def test_compacting_is_equal_and_done_after_once(network, seed):
    model, rng = Traced(network), np.random.default_rng(seed)
    constants, values = Constants(model.document), {}
    for home in model.floats:
        array = values.setdefault(home, np.array(constants.stored(home)))
        axis = int(rng.integers(array.ndim))
        array[(slice(None),) * axis + (rng.random(array.shape[axis]) < 0.4,)] = 0
    masked = write_constants(model.document, values)
    first, second = feeds(network)
    found = compact(masked, first, more_feeds=[second], provider="cpu", round_to=1)
    again = compact(found.document, first, provider="cpu", round_to=1)
    assert again.document.proto.SerializeToString() == found.document.proto.SerializeToString()
