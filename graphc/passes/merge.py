"""Joining kernels after fusion: several fusions become one with several results.

Two kernels may join unless a third one lies between them, which would have to run both before and after. Which ones
should is said by a pass: see `columns.py` and `updates.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ops import Fusion, Input
from graphc.passes.fuse import used_dims


class Merger:
    """Groups of a fused graph's nodes. `most` bounds a group: the nodes of all its bodies."""

    def __init__(self, graph: Graph, most: int) -> None:
        self.graph, self.most = graph, most
        self.outputs = {v for _, v in graph.outputs}
        self.joined = False
        self.group: dict[int, int] = {n.id: n.id for n in graph.nodes}
        self.members: dict[int, list[Node]] = {n.id: [n] for n in graph.nodes}
        self._before = {n.id: {v.node for v in n.operands} for n in graph.nodes}
        self._after: dict[int, set[int]] = {n.id: set() for n in graph.nodes}
        for id, before in self._before.items():
            for other in before:
                self._after[other].add(id)

    def lead(self, members: Sequence[Node]) -> Node:
        """The one of a group that the kernel is named after: the last."""
        return members[-1]

    # Joining

    def attempt(self, one: int, two: int) -> bool:
        """Joins the groups of two kernels where no other one lies between them; says whether it did."""
        a, b = self.group[one], self.group[two]
        if a == b or self._size(a) + self._size(b) > self.most or self._apart({a, b}):
            return False
        keep, gone = min(a, b), max(a, b)
        self.members[keep] = sorted(self.members[keep] + self.members.pop(gone), key=lambda n: n.id)
        for node in self.members[keep]:
            self.group[node.id] = keep
        for there, back in ((self._before, self._after), (self._after, self._before)):
            for other in there[gone]:
                back[other] = back[other] - {gone} | {keep}
            there[keep] = (there[keep] | there.pop(gone)) - {keep, gone}
            back[keep].discard(keep)
        self.joined = True
        return True

    def _size(self, group: int) -> int:
        return sum(len(n.op.body) for n in self.members[group] if isinstance(n.op, Fusion))

    def _apart(self, pair: set[int]) -> bool:
        """Whether a path leaves the pair and comes back."""
        stack = [g for group in pair for g in self._after[group] if g not in pair]
        seen = set(stack)
        while stack:
            after = self._after[stack.pop()]
            if not after.isdisjoint(pair):
                return True
            new = after - seen
            seen |= new
            stack += new
        return False

    # Writing the graph

    def emit(self) -> Graph:
        """The graph in an order in which every group finds its operands."""
        b = GraphBuilder(self.graph.name, self.graph.dims)
        done: dict[Value, Value] = {}
        for group in self._order():
            members = self.members[group]
            if len(members) > 1:
                self._emit_group(b, members, done)
                continue
            (node,) = members
            with b.at(node.scope, node.span):
                new = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, new, strict=True))
        return b.build([(name, done[v]) for name, v in self.graph.outputs], prune=False)

    def _order(self) -> list[int]:
        waits = {
            group: {self.group[v.node] for n in members for v in n.operands} - {group}
            for group, members in self.members.items()
        }
        users: dict[int, list[int]] = {group: [] for group in waits}
        for group, before in waits.items():
            for other in before:
                users[other].append(group)
        left = {group: len(before) for group, before in waits.items()}
        ready = [group for group, count in left.items() if count == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            group = heapq.heappop(ready)
            order.append(group)
            for user in users[group]:
                left[user] -= 1
                if left[user] == 0:
                    heapq.heappush(ready, user)
        return order

    def _emit_group(
        self, b: GraphBuilder, members: Sequence[Node], done: dict[Value, Value]
    ) -> None:
        """One fusion of several bodies; what both compute is computed once."""
        lead = self.lead(members)
        inside = {n.id for n in members}
        assert isinstance(lead.op, Fusion)
        body = GraphBuilder(lead.op.body.name, self.graph.dims)
        known: dict[Value, Value] = {}  # of the outer graph -> of the body
        same: dict[object, tuple[Value, ...]] = {}
        external: list[Value] = []
        for member in members:
            assert isinstance(member.op, Fusion)
            inner = member.op.body
            at: dict[Value, Value] = {}
            for node, value in zip(inner.inputs, member.operands, strict=True):
                if value not in known:
                    (type,) = node.types
                    label = f"arg{len(external)}"
                    known[value] = body(Input(label, type.dtype, type.shape))
                    external.append(value)
                at[node.values[0]] = known[value]
            for node in inner.nodes:
                if node.op.name == "input":
                    continue
                operands = tuple(at[v] for v in node.operands)
                key = (node.op, operands)
                if key not in same:
                    with body.at(node.scope, node.span):
                        same[key] = tuple(body.emit(node.op, *operands))
                at.update(zip(node.values, same[key], strict=True))
            for value, (_, result) in zip(member.values, inner.outputs, strict=True):
                known[value] = at[result]
        results = [v for n in members for v in n.values if self._read_outside(v, inside)]
        used = used_dims(body)
        body.dims = {n: d for n, d in body.dims.items() if n in used}
        op = Fusion(
            lead.op.kind, body.build([(f"out{i}", known[v]) for i, v in enumerate(results)])
        )
        with b.at(lead.scope, lead.span):
            new = b.emit(op, *(done[v] for v in external))
        done.update(zip(results, new, strict=True))

    def _read_outside(self, value: Value, inside: set[int]) -> bool:
        readers = (user.id for user, _ in self.graph.uses(value))
        return value in self.outputs or any(id not in inside for id in readers)
