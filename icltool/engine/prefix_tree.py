"""The prefixes of prompts whose keys and values are stored, with their slots in the pool."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence


class _Node:
    """One stored token after the tokens of its ancestors. `used` is when a prompt last passed through it."""

    __slots__ = ("children", "depth", "parent", "slot", "unit", "used")

    def __init__(self, parent: _Node | None, unit: Hashable, slot: int, used: int) -> None:
        self.parent: _Node | None = parent
        self.unit = unit
        self.slot = slot
        self.used = used
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.children: dict[Hashable, _Node] = {}

    def leave(self) -> None:
        assert self.parent is not None
        assert not self.children
        del self.parent.children[self.unit]


class PrefixTree:
    """A tree over the units of tokens (see PromptTokens); every path from its root is stored.

    `begin()` starts a round. `oldest` frees the slots of paths that no prompt of the round passes through, the longest unused
    first; paths that were used in the round stay.
    """

    def __init__(self) -> None:
        self._root = _Node(None, None, -1, 0)
        self._round = 0
        self._size = 0
        self._all_in_use = False

    def __len__(self) -> int:
        """The number of stored tokens."""
        return self._size

    def begin(self) -> None:
        self._round += 1
        self._all_in_use = False

    def find(self, units: Sequence[Hashable], limit: int) -> list[int]:
        """Slots of the longest stored prefix of `units`, at most `limit` tokens."""
        slots: list[int] = []
        node = self._root
        for unit in units[:limit]:
            child = node.children.get(unit)
            if child is None:
                break
            child.used = self._round
            slots.append(child.slot)
            node = child
        return slots

    def missing(self, units: Sequence[Hashable], limit: int) -> int:
        """The number of the first `limit` tokens that are not stored."""
        return max(0, limit - len(self.find(units, limit)))

    def add(self, units: Sequence[Hashable], slots: Sequence[int]) -> None:
        """Stores the tokens of `units` after the stored prefix, one in each of these slots."""
        node = self._root
        free = iter(slots)
        for unit in units:
            child = node.children.get(unit)
            if child is None:
                child = node.children[unit] = _Node(node, unit, next(free), self._round)
                self._size += 1
            child.used = self._round
            node = child

    def oldest(self, count: int) -> list[int]:
        """Removes up to `count` tokens that this round does not use, and returns their slots.

        A token is in use whenever a later token of its path is, so no path is cut in the middle.
        """
        if self._all_in_use:  # what a round uses stays in use
            return []
        idle = [n for n in self._nodes() if n.used < self._round]
        self._all_in_use = len(idle) <= count
        idle.sort(key=lambda n: (n.used, -n.depth))
        freed = []
        for node in idle[:count]:
            node.leave()
            freed.append(node.slot)
        self._size -= len(freed)
        return freed

    def drop(self, slots: Collection[int]) -> None:
        """Removes the tokens in these slots; no other stored token may follow them."""
        gone = set(slots)
        doomed = [n for n in self._nodes() if n.slot in gone]
        for node in sorted(doomed, key=lambda n: -n.depth):
            node.leave()
        self._size -= len(doomed)

    def _nodes(self) -> list[_Node]:
        nodes: list[_Node] = []
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            nodes.append(node)
            waiting += node.children.values()
        return nodes
