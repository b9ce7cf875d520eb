import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emboflow_dagster.errors import ErrorKind, InvalidInputError
from emboflow_dagster.model.workflow import LogicEdge, LogicGraph, LogicNode
from emboflow_dagster.runtime.graph import Graph, run_order, shown_path

NODES = [f"n{i}" for i in range(9)]
edge_lists = st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=25)


def is_acyclic(edges: set[tuple[str, str]]) -> bool:
    """The slow way: nodes without incoming edges are taken away until nothing moves."""
    left = set(NODES)
    while True:
        free = {n for n in left if not any(b == n and a in left for a, b in edges)}
        if not free:
            return not left
        left -= free


@given(edge_lists)
def test_order_and_cycles_agree_with_the_slow_way(edges):
    graph = Graph(NODES, edges)
    if is_acyclic(set(edges)):
        order = graph.run_order()
        assert sorted(order) == sorted(NODES)
        assert all(order.index(a) < order.index(b) for a, b in edges)
        assert graph.cycles() == []
        assert graph.find_cycle() == []
        return
    with pytest.raises(InvalidInputError) as caught:
        graph.run_order()
    assert caught.value.kind is ErrorKind.GRAPH_CYCLE
    cycle = graph.find_cycle()
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    assert all(step in edges for step in pairwise(cycle))


@given(edge_lists)
def test_every_cycle_dies_when_the_reported_nodes_are_taken_out(edges):
    members = {node for cycle in Graph(NODES, edges).cycles() for node in cycle}
    knotted = Graph(NODES, edges)
    in_a_cycle = {n for n in NODES if n in knotted.downstream(n)}
    assert members <= in_a_cycle
    # One cycle is reported for each knot: every node in a cycle reaches a reported one and back.
    assert all(
        any(m in knotted.downstream(n) and n in knotted.downstream(m) for m in members) for n in in_a_cycle
    )


@given(edge_lists, st.sampled_from(NODES))
def test_downstream_is_the_transitive_closure(edges, start):
    found = {b for a, b in edges if a == start}
    while True:
        more = found | {b for a, b in edges if a in found}
        if more == found:
            break
        found = more
    graph = Graph(NODES, edges)
    assert graph.downstream(start) == found
    assert graph.subtree(start) == [n for n in NODES if n in found | {start}]


def test_file_order_decides_among_those_that_may_run():
    assert Graph(["z", "b", "a", "m"], [("z", "m")]).run_order() == ["z", "b", "a", "m"]
    assert Graph(["m", "b", "z"], [("z", "m")]).run_order() == ["b", "z", "m"]


def test_order_of_after_is_kept():
    logic = LogicGraph(
        nodes=[LogicNode(id=n, type="x") for n in ("a", "b", "c")],
        edges=[LogicEdge(from_="b", to="c"), LogicEdge(from_="a", to="c")],
    )
    graph = Graph.of(logic)
    assert graph.before["c"] == ["b", "a"] == logic.upstream()["c"]
    assert run_order(logic.upstream()) == ["a", "b", "c"]


def test_separate_cycles_are_all_found_shortest_first_node_first():
    edges = [("a", "b"), ("b", "a"), ("b", "c"), ("x", "y"), ("y", "z"), ("z", "x"), ("y", "x"), ("s", "s")]
    assert Graph(["s", "a", "b", "c", "x", "y", "z"], edges).cycles() == [
        ["s", "s"],
        ["a", "b", "a"],
        ["x", "y", "x"],
    ]


def test_twenty_thousand_nodes_in_a_row_neither_recurse_nor_take_long():
    ids = [f"n{i}" for i in range(20_000)]
    chain = list(pairwise(ids))
    started = time.perf_counter()
    assert Graph(ids, chain).run_order() == ids
    assert len(Graph(ids, chain).downstream("n0")) == 19_999
    assert Graph(ids, [*chain, (ids[-1], ids[0])]).find_cycle() == [*ids, ids[0]]
    assert time.perf_counter() - started < 5


def test_a_long_path_is_counted_not_shown():
    text = shown_path([f"n{i}" for i in range(400)])
    assert text.startswith("n0 -> n1 -> ")
    assert "(388 more)" in text
    assert text.endswith(" -> n399")
