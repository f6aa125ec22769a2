"""The graph: types, dims, the op contract, nodes, rewriting, verifier, printer and reader."""
