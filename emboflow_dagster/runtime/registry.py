"""The node types there are: every ``NODE`` of the modules in :mod:`emboflow_dagster.runtime.nodes`.

Adding a node type touches one file there. Found once a process, on first use.
"""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator

from emboflow_dagster.errors import ConfigurationError, ErrorKind, NotFoundError, shown
from emboflow_dagster.model.workflow import ExecutorType
from emboflow_dagster.runtime.node import NodeType

AVAILABLE_EXECUTORS = frozenset({ExecutorType.PYTHON, ExecutorType.DOCKER})


def nearest(word: object, words: Iterable[str]) -> str | None:
    """The most similar of ``words``, or ``None`` when nothing is near.

    >>> nearest("filtre", ["filter", "source"])
    'filter'
    """
    if not isinstance(word, str) or len(word) > 128:  # noqa: PLR2004 - nothing we name is as long
        return None
    plain = word.strip().lower().replace("_", "-")
    spellings = {known.lower().replace("_", "-"): known for known in words}
    found = difflib.get_close_matches(plain, spellings, n=1, cutoff=0.6)
    return spellings[found[0]] if found else None


class NodeTypes:
    """Node types by id and alias, and the executors this installation has.

    Raises:
        ConfigurationError: Two types share an id or alias.
    """

    def __init__(
        self, types: Iterable[NodeType], *, executors: frozenset[ExecutorType] = AVAILABLE_EXECUTORS
    ) -> None:
        self.executors = executors
        self._by_id: dict[str, NodeType] = {}
        self._by_name: dict[str, NodeType] = {}
        for node_type in types:
            self._by_id[node_type.id] = node_type
            for name in (node_type.id, *node_type.aliases):
                other = self._by_name.setdefault(name, node_type)
                if other is not node_type:
                    raise ConfigurationError(
                        f"node types {other.id!r} and {node_type.id!r} share the name {name!r}"
                    )

    def __iter__(self) -> Iterator[NodeType]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def ids(self) -> list[str]:
        """All canonical ids, sorted."""
        return sorted(self._by_id)

    def get(self, name: object) -> NodeType | None:
        """The type of that id or alias, or ``None``."""
        return self._by_name.get(name) if isinstance(name, str) else None

    def nearest(self, name: object) -> str | None:
        """The canonical id whose id or alias is most similar to ``name``."""
        found = nearest(name, self._by_name)
        return self._by_name[found].id if found else None

    def unknown(self, name: object) -> str:
        """What to tell somebody who asked for a type that is not there."""
        near = self.nearest(name)
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(self.ids())}"
        return f"found {shown(name)}; {hint}"

    def require(self, name: str) -> NodeType:
        """The type of that id or alias.

        Raises:
            NotFoundError: None has it (kind ``node-type``); the message names the nearest.
        """
        node_type = self.get(name)
        if node_type is None:
            raise NotFoundError(f"node type: {self.unknown(name)}", kind=ErrorKind.NODE_TYPE)
        return node_type


@functools.cache
def node_types() -> NodeTypes:
    """The node types of this installation.

    Modules whose name starts with ``_`` are parts of others and have no ``NODE``.

    Raises:
        ConfigurationError: A module has no ``NODE``, or two share a name.
    """
    package = importlib.import_module("emboflow_dagster.runtime.nodes")
    found: list[NodeType] = []
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        node_type = getattr(module, "NODE", None)
        if not isinstance(node_type, NodeType):
            raise ConfigurationError(
                f"{module.__name__} has no NODE", hint="every module there is one node type"
            )
        found.append(node_type)
    return NodeTypes(found)
