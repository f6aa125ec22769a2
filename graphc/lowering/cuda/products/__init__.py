"""Products by tiles: matrices, convolutions, gradients of weights."""
