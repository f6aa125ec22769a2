"""Graph to graph: one file a pass, one explicit pipeline."""
