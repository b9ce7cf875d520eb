from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.runtime.narrowing import effective
from emboflow_dagster.runtime.node import Narrowing

ids = st.lists(st.sampled_from([f"a{i}" for i in range(12)]), unique=True)
many = st.lists(ids, min_size=1, max_size=5)
any_narrowing = st.sampled_from([None, *Narrowing])


def test_the_three_operations_and_the_ordinary_node():
    bound = ["d", "c", "b", "a"]
    up = [["a", "b", "c"], ["b", "c"], ["c", "d"]]
    assert effective(Narrowing.UNION, up, bound) == ["d", "c", "b", "a"]
    assert effective(Narrowing.INTERSECTION, up, bound) == ["c"]
    assert effective(Narrowing.DIFFERENCE, up, bound) == ["a"]
    assert effective(None, up, bound) == ["d", "c", "b", "a"]


def test_the_first_upstream_of_a_difference_is_the_minuend():
    assert effective(Narrowing.DIFFERENCE, [["a", "b"], ["b"]], ["a", "b"]) == ["a"]
    assert effective(Narrowing.DIFFERENCE, [["b"], ["a", "b"]], ["a", "b"]) == []


def test_an_asset_bound_twice_is_worked_on_once():
    assert effective(None, [["a", "b", "a"]], ["b", "a", "b"]) == ["b", "a"]


def test_no_upstream_gives_nothing():
    for narrowing in (None, *Narrowing):
        assert effective(narrowing, [], ["a"]) == []


@given(any_narrowing, many, ids)
def test_the_result_is_a_subset_of_the_bound_assets_in_their_order(narrowing, upstream, bound):
    result = effective(narrowing, upstream, bound)
    assert result == [asset for asset in bound if asset in set(result)]
    assert len(set(result)) == len(result)


@given(many, ids)
def test_each_operation_is_its_set_operation(upstream, bound):
    sets = [set(each) for each in upstream]
    inside = set(bound)
    assert set(effective(Narrowing.UNION, upstream, bound)) == set.union(*sets) & inside
    assert set(effective(Narrowing.INTERSECTION, upstream, bound)) == set.intersection(*sets) & inside
    assert set(effective(Narrowing.DIFFERENCE, upstream, bound)) == sets[0].difference(*sets[1:]) & inside


@given(any_narrowing, ids, ids)
def test_one_upstream_passes_through_whatever_the_operation(narrowing, upstream, bound):
    assert effective(narrowing, [upstream], bound) == [a for a in bound if a in upstream]


@given(any_narrowing, many, ids, st.randoms())
def test_the_order_inside_an_upstream_set_does_not_matter(narrowing, upstream, bound, random):
    shuffled = [random.sample(each, len(each)) for each in upstream]
    assert effective(narrowing, shuffled, bound) == effective(narrowing, upstream, bound)
