"""What takes bodies of any ops: the nest, reductions over columns, scattered rows, sorting."""
