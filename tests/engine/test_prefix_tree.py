"""The tree of stored tokens against a dictionary of beginnings."""

from __future__ import annotations

from hypothesis import given, strategies as st

from icltool.engine.prefix_tree import PrefixTree

UNITS = st.text("ab", max_size=4).map(tuple)
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(["add", "find", "oldest"]), UNITS, st.integers(0, 4)))


class Dictionary:
    """Every stored beginning with its slot and the round that last used it."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, ...], tuple[int, int]] = {}
        self.round = 0

    def find(self, units: tuple[str, ...], limit: int) -> list[int]:
        results = []
        for end in range(1, min(limit, len(units)) + 1):
            if units[:end] not in self.stored:
                break
            slot = self.stored[units[:end]][0]
            self.stored[units[:end]] = (slot, self.round)
            results.append(slot)
        return results

    def oldest(self, count: int) -> list[int]:
        idle = [(used, -len(path), path) for path, (_, used) in self.stored.items() if used < self.round]
        gone = sorted(idle)[:count]
        return [self.stored.pop(path)[0] for _, _, path in gone]


@given(STEPS)
def test_the_tree_is_a_dictionary_of_beginnings(steps: list[tuple[bool, str, tuple[str, ...], int]]) -> None:
    tree, plain, slots = PrefixTree(), Dictionary(), iter(range(1, 1000))
    for begin, step, units, number in steps:
        if begin:
            tree.begin()
            plain.round += 1
        if step == "find":
            assert tree.find(units, number) == plain.find(units, number)
        elif step == "add":
            known = len(plain.find(units, len(units)))
            assert tree.missing(units, len(units)) == len(units) - known
            fresh = [next(slots) for _ in units[known:]]
            tree.add(units, fresh)
            for end, slot in enumerate(fresh, known + 1):
                plain.stored[units[:end]] = (slot, plain.round)
        else:
            _drop_oldest(tree, plain, number)
        assert len(tree) == len(plain.stored)
        assert all(path[:-1] in plain.stored or len(path) == 1 for path in plain.stored), "a path is cut"


def _drop_oldest(tree: PrefixTree, plain: Dictionary, count: int) -> None:
    """Tokens of the same age and depth may go in any order: the dictionary drops what the tree did."""
    before = dict(plain.stored)
    path_of = {slot: path for path, (slot, _) in before.items()}
    freed, expected = tree.oldest(count), plain.oldest(count)

    def ages(slots: list[int]) -> list[tuple[int, int]]:
        return [(before[path_of[slot]][1], -len(path_of[slot])) for slot in slots]

    assert ages(freed) == ages(expected)
    plain.stored = {path: value for path, value in before.items() if value[0] not in freed}


@given(st.lists(UNITS, max_size=8), st.data())
def test_dropped_slots_are_forgotten_with_what_follows_them(paths: list[tuple[str, ...]], data: st.DataObject) -> None:
    tree, slot_of = PrefixTree(), {}
    for path in paths:
        known = len(tree.find(path, len(path)))
        fresh = list(range(len(slot_of) + 1, len(slot_of) + 1 + len(path) - known))
        tree.add(path, fresh)
        slot_of |= {path[: known + k + 1]: slot for k, slot in enumerate(fresh)}
    cut = data.draw(st.sampled_from([*slot_of, ()]))
    gone = {path for path in slot_of if cut and path[: len(cut)] == cut}
    tree.drop([slot_of[path] for path in gone])
    assert len(tree) == len(slot_of) - len(gone)
    for path in slot_of:
        left = next((k for k in range(len(path)) if path[: k + 1] in gone), len(path))
        assert tree.find(path, len(path)) == [slot_of[path[: k + 1]] for k in range(left)]


def test_what_this_round_uses_is_safe() -> None:
    tree = PrefixTree()
    tree.add("ab", [1, 2])
    tree.add("ac", [3])
    tree.begin()
    assert tree.find("ac", 2) == [1, 3]
    assert tree.oldest(10) == [2]
    assert tree.oldest(10) == []
    tree.begin()
    assert tree.oldest(10) == [3, 1]
