"""Loop nests for any body of ops: read off the graph, scheduled, written. See ARCHITECTURE.md."""
