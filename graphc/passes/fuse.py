"""Operator fusion: the graph becomes kernels.

Every run-time node ends in one `Fusion` node that owns its body, except aliases (a reshape is the same bytes) and what
depends on parameters only (computed once, when a module is built). Groups start as single nodes and grow by one rule:
**a group whose only readers are in one other group may join it**. That can never make a cycle (every path out of the
group passes through those readers), never computes a value twice, and never keeps an intermediate in memory that
nobody else needs. What each side allows:

- a *rooted* group (contraction, window, reduction, row composite) takes elementwise readers as its epilogue, and
  finally one placeable op (transpose, pad) that its stores go through;
- a reduction or row composite takes elementwise and index producers as its prologue; a contraction or window takes
  none, since it reads each element many times;
- rootless groups (maps) join each other unless an expensive value would be computed at several indices.

Replicated ops (broadcasts, iota, scalar literals, masks of random numbers) belong to no group: each reader's body gets
its own copy.

Longer than most, because the rules decide together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.dim import names_of
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ops import BroadcastInDim, Cond, Fusion, Input, Scan, Transpose
from graphc.passes.captures import apart
from graphc.passes.static import open_ended

MAX_MEMBERS = 64  # keeps kernels readable and their compile time bounded
MAX_STATIC_ELEMENTS = (
    1 << 26
)  # a literal-only tensor above this is computed at run time instead of stored
_ROOTED = (Pattern.CONTRACT, Pattern.WINDOW, Pattern.REDUCE, Pattern.COMPOSITE)
_READS_ONCE = (Pattern.REDUCE, Pattern.COMPOSITE)


def static_nodes(graph: Graph) -> frozenset[int]:
    """Ids of nodes whose results are fixed when a module is built: they depend on parameters and literals only.

    Nodes that depend on a named dim, and large tensors made from literals alone, are left to run time.
    """
    static: set[int] = set()
    from_parameter: set[int] = set()
    for node in graph.nodes:
        if node.op.name == "input" or open_ended(node):
            continue
        if not all(v.node in static for v in node.operands):
            continue
        if node.op.name == "parameter" or any(v.node in from_parameter for v in node.operands):
            from_parameter.add(node.id)
        elif sum(int(t.size) for t in node.types if isinstance(t.size, int)) > MAX_STATIC_ELEMENTS:
            continue
        static.add(node.id)
    return frozenset(static)


def _computes(op: Op) -> bool:
    """Whether an op can be evaluated element by element."""
    return type(op).compute is not Op.compute


@dataclass
class _Group:
    """Nodes that will share a kernel; `output` is the last of them and the only one read from outside."""

    members: set[int]
    output: int
    root: Node | None = None
    closed: bool = False  # ends in a placeable op: nothing may follow
    placed: dict[Value, Value] = field(
        default_factory=dict
    )  # results of several that are stored through a transpose

    @property
    def opaque(self) -> bool:
        return self.root is not None and self.root.op.pattern not in _ROOTED


class _Fuser:
    """Makes the kernels of a graph, or of a body: nothing is static in it, its first outputs are carries."""

    def __init__(self, graph: Graph, carries: int | None = None) -> None:
        self.graph, self.carries = graph, carries
        self.static = static_nodes(graph) if carries is None else frozenset[int]()
        self.replicated = {n.id for n in graph.nodes if self._is_replicated(n)}
        self.replicated |= self._random_masks() | self._per_channel() | self._strided_views()
        self.groups: dict[int, _Group] = {}
        self._prologues = False
        for node in graph.nodes:
            if not self._is_free(node):
                pattern = node.op.pattern
                rootless = pattern in (Pattern.ELEMENTWISE, Pattern.INDEX, Pattern.SOURCE)
                self.groups[node.id] = _Group({node.id}, node.id, None if rootless else node)

    def _is_replicated(self, node: Node) -> bool:
        if not node.op.replicated:
            return False
        graph = self.graph
        return not any(graph.is_output(v) for v in node.values) and all(
            user.op.pattern not in (Pattern.CONTRACT, Pattern.WINDOW, Pattern.REGION)
            and (user.op.pattern is not Pattern.OPAQUE or _computes(user.op))
            and not user.op.alias
            and slot >= user.op.strided_operands
            for user, slot in graph.users(node)
        )

    def _random_masks(self) -> set[int]:
        """Random numbers and what is elementwise in them, where all is read element by element.

        A backward pass then makes its mask again, about as fast as it would read it, and nothing is kept for it.
        """
        graph, found = self.graph, set[int]()
        for node in graph.nodes:
            random = node.op.pattern is Pattern.SOURCE and node.operands
            derived = node.op.pattern is Pattern.ELEMENTWISE and not node.op.expensive
            known = [v.node in found for v in node.operands]
            again = random or (
                derived
                and any(known)
                and all(v.node in found | self.replicated for v in node.operands)
            )
            if again and node.id not in self.static and len(node.types) == 1:
                users = [user for user, _ in graph.users(node)]
                pointwise = all(u.op.pattern is Pattern.ELEMENTWISE for u in users)
                if pointwise and not graph.is_output(node.values[0]):
                    found.add(node.id)
        return found

    def _per_channel(self) -> set[int]:
        """Cheap ops on a large value and vectors over its last dimension (x minus its mean) with several readers.

        Each reader computes it again from the large value, which others need as well: as many bytes are read, and
        nothing is written.
        """
        graph, found = self.graph, set[int]()
        for node in graph.nodes:
            if node.op.pattern is not Pattern.ELEMENTWISE or node.op.expensive:
                continue
            if node.id in self.static or len(node.operands) < 2:
                continue
            large = [v for v in node.operands if not self._is_spread(v)]
            users = {user.id: user for user, _ in graph.users(node)}
            if len(large) != 1 or len(users) < 2 or graph.is_output(node.values[0]):
                continue
            stored = large[0].node not in self.replicated and len(graph.uses(large[0])) > 1
            reads = (Pattern.ELEMENTWISE, Pattern.REDUCE)
            if stored and all(user.op.pattern in reads for user in users.values()):
                found.add(node.id)
        return found

    def _strided_views(self) -> set[int]:
        """Transposes that several kernels read as strides of memory, and nobody else reads: nothing is moved."""
        found = set[int]()
        for node in self.graph.nodes:
            users = self.graph.users(node)
            if isinstance(node.op, Transpose) and len(users) > 1 and node.id not in self.static:
                strided = all(slot < user.op.strided_operands for user, slot in users)
                if strided and not self.graph.is_output(node.values[0]):
                    found.add(node.id)
        return found

    def _is_spread(self, value: Value) -> bool:
        """A vector repeated along all dimensions but the last."""
        node = self.graph.node(value.node)
        last = (len(node.types[0].shape) - 1,)
        return isinstance(node.op, BroadcastInDim) and last > (0,) and node.op.dims == last

    def _is_free(self, node: Node) -> bool:
        """Outside every group: inputs, build-time values, replicated ops, aliases."""
        return (
            node.op.name in ("input", "parameter")
            or node.id in self.static
            or node.id in self.replicated
            or node.op.alias
        )

    # Growing groups

    def grow(self) -> None:
        """Joins groups until no rule applies.

        Epilogues come first: what could follow a contraction or precede a reduction follows the
        contraction, since a row kernel goes over its elements several times.
        """
        for prologues in (False, True):
            self._prologues = prologues
            changed = True
            while changed:
                changed = False
                for key in sorted(self.groups, reverse=True):
                    if key in self.groups and self._join_reader(self.groups[key]):
                        changed = True

    def place_results(self) -> None:
        """Stores the results of an op with several through the transposes that alone read them, row by row."""
        for group in {id(g): g for g in self.groups.values()}.values():
            root = group.root
            if root is None or len(root.types) < 2 or not root.op.strided_operands:
                continue
            for value in root.values:
                uses = self.graph.uses(value)
                if len(uses) != 1 or self.graph.is_output(value):
                    continue
                reader = self.groups.get(uses[0][0].id)
                node = uses[0][0]
                alone = reader is not None and reader.members == {node.id}
                if alone and isinstance(node.op, Transpose) and _keeps_rows(node.op):
                    group.placed[value] = node.values[0]
                    group.members.add(node.id)
                    self.groups[node.id] = group

    def _join_reader(self, group: _Group) -> bool:
        reader = self._only_reader(group)
        if reader is None or not self._may_join(group, reader):
            return False
        placed = self.graph.node(reader.output).op.placeable and group.root is not None
        reader.members |= group.members
        reader.closed = reader.closed or placed
        reader.root = reader.root or group.root
        for id in group.members:
            self.groups[id] = reader
        return True

    def _only_reader(self, group: _Group) -> _Group | None:
        node = self.graph.node(group.output)
        if len(node.types) != 1 or self.graph.is_output(node.values[0]):
            return None
        readers = [self.groups.get(user.id) for user, _ in self.graph.users(node)]
        if not readers or readers[0] is None or any(r is not readers[0] for r in readers):
            return None
        return readers[0]

    def _may_join(self, group: _Group, reader: _Group) -> bool:
        if group is reader or group.opaque or reader.opaque or group.closed:
            return False
        if len(group.members) + len(reader.members) > MAX_MEMBERS:
            return False
        uses = [(u, s) for u, s in self.graph.users(group.output)]
        if group.root is not None:
            return reader.root is None and self._is_epilogue(group, reader)
        if reader.root is not None:
            return self._feeds_root_well(reader, [u for u, _ in uses]) and self._read_strided(
                group, reader.root
            )
        return self._computed_once(group, [u for u, _ in uses])

    def _is_epilogue(self, group: _Group, reader: _Group) -> bool:
        """Every node of `reader` that depends on the root's result is elementwise on it, or places the end."""
        assert group.root is not None
        shape = self.graph.node(group.output).types[0].shape
        op = group.root.op
        may_place = op.pattern in (Pattern.CONTRACT, Pattern.WINDOW) or bool(op.strided_operands)
        dependent = {group.output}
        for id in sorted(reader.members):
            node = self.graph.node(id)
            if not any(v.node in dependent for v in node.operands):
                continue
            dependent.add(id)
            pointwise = node.op.pattern is Pattern.ELEMENTWISE and node.types[0].shape == shape
            places = may_place and node.op.placeable and id == reader.output
            if not (pointwise or places):
                return False
        return reader.output in dependent

    def _feeds_root_well(self, reader: _Group, users: Sequence[Node]) -> bool:
        assert reader.root is not None
        if reader.root.op.pattern in _READS_ONCE:
            return self._prologues and all(self._reads_once(u) for u in users)
        before = self._ancestors_in(reader, reader.root)
        return all(
            u.id not in before and u.id != reader.root.id and u.op.pattern is Pattern.ELEMENTWISE
            for u in users
        )

    def _read_strided(self, group: _Group, root: Node) -> bool:
        """Whether the root's operands that are read many times stay transposes of memory."""
        first = root.op.strided_operands
        if not any(v.node == group.output for v in root.operands[:first]):
            return True
        return all(isinstance(self.graph.node(id).op, Transpose) for id in group.members)

    def _ancestors_in(self, group: _Group, node: Node) -> set[int]:
        found: set[int] = set()
        stack = [node]
        while stack:
            for v in stack.pop().operands:
                if v.node in group.members and v.node not in found:
                    found.add(v.node)
                    stack.append(self.graph.node(v.node))
        return found

    def _reads_once(self, user: Node) -> bool:
        return user.op.pattern in (Pattern.ELEMENTWISE, *_READS_ONCE)

    def _computed_once(self, group: _Group, users: Sequence[Node]) -> bool:
        pointwise = all(u.op.pattern is Pattern.ELEMENTWISE for u in users)
        if pointwise or not any(self.graph.node(id).op.expensive for id in group.members):
            return True
        return len(users) == 1 and users[0].op.placeable

    # Writing the fused graph

    def emit(self) -> Graph:
        """The graph of fusions, aliases, and the build-time part."""
        b = GraphBuilder(self.graph.name, self.graph.dims)
        done: dict[Value, Value] = {}
        outputs_of = {id(g): g for g in self.groups.values()}
        ends = {g.output: g for g in outputs_of.values()}
        for node in self.graph.nodes:
            if node.id in ends and node.op.regions:
                self._emit_region(b, node, done)
            elif node.id in ends:
                self._emit_fusion(b, ends[node.id], done)
            elif self._is_free(node) and not (
                node.id in self.replicated and any(v not in done for v in node.operands)
            ):
                with b.at(node.scope, node.span):
                    new = b.emit(node.op, *(done[v] for v in node.operands))
                done.update(zip(node.values, new, strict=True))
        return b.build(
            self._own_outputs(b, [(n, done[v]) for n, v in self.graph.outputs]), prune=True
        )

    def _emit_fusion(self, b: GraphBuilder, group: _Group, done: dict[Value, Value]) -> None:
        end = self.graph.node(group.output)
        lead = group.root or end
        body = GraphBuilder(lead.op.name, self.graph.dims)
        inner: dict[Value, Value] = {}
        external: list[Value] = []

        def place(value: Value) -> Value:
            if value in inner:
                return inner[value]
            node = self.graph.node(value.node)
            if node.id in group.members or node.id in self.replicated:
                operands = [place(v) for v in node.operands]
                with body.at(node.scope, node.span):
                    inner.update(zip(node.values, body.emit(node.op, *operands), strict=True))
            else:
                t = self.graph.type_of(value)
                inner[value] = body(Input(f"arg{len(external)}", t.dtype, t.shape))
                external.append(value)
            return inner[value]

        ends = [group.placed.get(v, v) for v in end.values]
        results = [(f"out{i}", place(v)) for i, v in enumerate(ends)]
        used = used_dims(body)
        body.dims = {n: d for n, d in body.dims.items() if n in used}
        op = Fusion(lead.op.name if group.root is not None else "map", body.build(results))
        with b.at(lead.scope, lead.span):
            new = b.emit(op, *(done[v] for v in external))
        done.update(zip(ends, new, strict=True))

    def _emit_region(self, b: GraphBuilder, node: Node, done: dict[Value, Value]) -> None:
        """A loop or choice is a kernel of its own, its bodies made of kernels. Each operand is an input of its own."""
        op, operands = node.op, list(node.operands)
        if isinstance(op, Scan):
            loop = _body(op.body, op.carries)
            (loop,), operands = apart([loop], operands, op.sequences + op.carries)
            op = replace(op, body=loop)
        elif isinstance(op, Cond):
            bodies, captures = apart([_body(body) for body in op.regions], operands[1:])
            op, operands = Cond(*bodies), [operands[0], *captures]
        body = GraphBuilder(op.name, self.graph.dims)
        types = [self.graph.type_of(v) for v in operands]
        inputs = [body(Input(f"arg{i}", t.dtype, t.shape)) for i, t in enumerate(types)]
        with body.at(node.scope, node.span):
            results = body.emit(op, *inputs)
        used = used_dims(body)
        body.dims = {n: d for n, d in body.dims.items() if n in used}
        fusion = Fusion(op.name, body.build([(f"out{i}", v) for i, v in enumerate(results)]))
        with b.at(node.scope, node.span):
            new = b.emit(fusion, *(done[v] for v in operands))
        done.update(zip(node.values, new, strict=True))

    def _own_outputs(
        self, b: GraphBuilder, outputs: Sequence[tuple[str, Value]]
    ) -> list[tuple[str, Value]]:
        """Copies outputs that no kernel writes for themselves: inputs, build-time values, one value named twice.

        State that stays as it is needs no copy: it is there. A carry that is also stacked is read from the stack.
        """
        written: set[Value] = set()
        result = []
        same = {name for name, value in outputs if self._is_state(b, name, value)}
        for position, (name, value) in enumerate(outputs):
            if position == self.carries:
                written = set()
            if name in same:
                result.append((name, value))
                continue
            origin = value
            while b.node_of(origin).op.alias:
                origin = b.node_of(origin).operands[0]
            if not isinstance(b.node_of(origin).op, Fusion) or origin in written:
                t = b.type_of(value)
                copy = GraphBuilder("copy", self.graph.dims)
                x = copy(Input("arg0", t.dtype, t.shape))
                used = used_dims(copy)
                copy.dims = {n: d for n, d in copy.dims.items() if n in used}
                value = origin = b(Fusion("map", copy.build([("out0", x)])), value)
            written.add(origin)
            result.append((name, value))
        return result

    @staticmethod
    def _is_state(b: GraphBuilder, name: str, value: Value) -> bool:
        op = b.node_of(value).op
        return isinstance(op, Input) and op.state and op.label == name


def _keeps_rows(op: Transpose) -> bool:
    """Whether the last dimension stays last."""
    last = len(op.permutation) - 1
    return op.permutation[last] == last


def used_dims(b: GraphBuilder) -> set[str]:
    """Named dims in the types and attributes of a builder's nodes."""
    names: set[str] = set()
    for node in b.nodes:
        names.update(node.op.dim_names)
        names.update(name for t in node.types for dim in t.shape for name in names_of(dim))
        names.update(name for region in node.op.regions for name in region.dims)
    return names


def _body(body: Graph, carries: int = 0) -> Graph:
    """A body made of kernels."""
    fuser = _Fuser(body, carries)
    fuser.grow()
    fuser.place_results()
    return fuser.emit()


def fuse(graph: Graph) -> Graph:
    """Partitions the graph into fusions; results stay the same, and so do inputs, outputs and parameters."""
    fuser = _Fuser(graph)
    fuser.grow()
    fuser.place_results()
    return fuser.emit()
