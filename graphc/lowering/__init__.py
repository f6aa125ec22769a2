"""From a graph to machine code: fusion, plan, kernels, objects."""
