"""What follows what: order, reach and cycles of a directed graph, without recursion.

All answers come in file order where the graph leaves a choice, so that the same file always gives the
same order. Linear in nodes and edges, apart from a logarithm for the stable order.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.text import refuse
from emboflow_dagster.model.workflow import LogicGraph


class Graph:
    """Node ids in file order, and edges between them.

    Edges that name no node are left out (the validation reports them); parallel edges count once.
    """

    def __init__(self, ids: Sequence[str], edges: Iterable[tuple[str, str]]) -> None:
        self.ids = list(dict.fromkeys(ids))
        self.index = {node: i for i, node in enumerate(self.ids)}
        self.before: dict[str, list[str]] = {node: [] for node in self.ids}
        """Node to the nodes it directly runs after, in the order of its edges."""
        self.after: dict[str, list[str]] = {node: [] for node in self.ids}
        """Node to the nodes that directly run after it."""
        for source, target in dict.fromkeys(edges):
            if source in self.index and target in self.index:
                self.after[source].append(target)
                self.before[target].append(source)

    @classmethod
    def of(cls, logic: LogicGraph) -> "Graph":
        """The graph of a published version."""
        return cls([node.id for node in logic.nodes], [(edge.from_, edge.to) for edge in logic.edges])

    def _order(self) -> list[str]:
        waiting = {node: len(self.before[node]) for node in self.ids}
        ready = [self.index[node] for node in self.ids if not waiting[node]]
        result: list[str] = []
        while ready:
            node = self.ids[heapq.heappop(ready)]
            result.append(node)
            for target in self.after[node]:
                waiting[target] -= 1
                if not waiting[target]:
                    heapq.heappush(ready, self.index[target])
        return result

    def run_order(self) -> list[str]:
        """Every node after all it depends on; among those that may run, the first in the file first.

        Raises:
            InvalidInputError: The graph has a cycle (kind ``graph-cycle``).
        """
        result = self._order()
        if len(result) < len(self.ids):
            raise refuse(ErrorKind.GRAPH_CYCLE, "", shown_path(self.find_cycle()))
        return result

    def downstream(self, starts: str | Iterable[str]) -> set[str]:
        """The nodes that run after any of ``starts``, directly or not."""
        stack = [starts] if isinstance(starts, str) else list(starts)
        found: set[str] = set()
        while stack:
            for target in self.after[stack.pop()]:
                if target not in found:
                    found.add(target)
                    stack.append(target)
        return found

    def subtree(self, start: str) -> list[str]:
        """``start`` and all that runs after it, in file order: what a retry of ``start`` resets."""
        found = self.downstream(start) | {start}
        return [node for node in self.ids if node in found]

    def find_cycle(self) -> list[str]:
        """A shortest path ``[a, b, a]`` through the first cycle, or ``[]``."""
        return next(iter(self.cycles()), [])

    def cycles(self) -> list[list[str]]:
        """One shortest cycle ``[a, ..., a]`` for each knot of nodes that wait for each other."""
        if len(self._order()) == len(self.ids):
            return []
        result: list[list[str]] = []
        for knot in self._knots():
            members = set(knot)
            start = min(knot, key=self.index.__getitem__)
            if len(knot) > 1 or start in self.after[start]:
                result.append(self._way_back(start, members))
        return sorted(result, key=lambda path: self.index[path[0]])

    def _way_back(self, start: str, members: set[str]) -> list[str]:
        came_from: dict[str, str] = {}
        queue = deque([start])
        while start not in came_from:
            node = queue.popleft()
            for target in self.after[node]:
                if target in members and target not in came_from:
                    came_from[target] = node
                    queue.append(target)
        path = [start, came_from[start]]
        while path[-1] != start:
            path.append(came_from[path[-1]])
        return path[::-1]

    def _knots(self) -> list[list[str]]:
        """Strongly connected components (Tarjan, with a stack of iterators instead of recursion)."""
        number: dict[str, int] = {}
        low: dict[str, int] = {}
        open_nodes: list[str] = []
        is_open: set[str] = set()
        result: list[list[str]] = []
        for root in self.ids:
            if root in number:
                continue
            work = [(root, iter(self.after[root]))]
            number[root] = low[root] = len(number)
            open_nodes.append(root)
            is_open.add(root)
            while work:
                node, targets = work[-1]
                for target in targets:
                    if target not in number:
                        number[target] = low[target] = len(number)
                        open_nodes.append(target)
                        is_open.add(target)
                        work.append((target, iter(self.after[target])))
                        break
                    if target in is_open:
                        low[node] = min(low[node], number[target])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[node])
                    if low[node] == number[node]:
                        cut = len(open_nodes) - 1
                        while open_nodes[cut] != node:
                            cut -= 1
                        result.append(open_nodes[cut:])
                        is_open.difference_update(result[-1])
                        del open_nodes[cut:]
        return result


def run_order(upstream: Mapping[str, Sequence[str]]) -> list[str]:
    """The run order of a graph given as node id to the ids it runs after (``LogicGraph.upstream()``).

    Raises:
        InvalidInputError: The graph has a cycle (kind ``graph-cycle``).
    """
    return Graph(list(upstream), [(b, node) for node, before in upstream.items() for b in before]).run_order()


def shown_path(path: Sequence[str], limit: int = 12) -> str:
    """``a -> b -> a``; the middle of a long path is counted, not shown.

    >>> shown_path(["a", "b", "a"])
    'a -> b -> a'
    """
    if len(path) > limit:
        half = limit // 2
        path = [*path[:half], f"({len(path) - 2 * half} more)", *path[-half:]]
    return " -> ".join(path)
