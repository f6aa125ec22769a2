"""Lowering to NVIDIA GPUs: CUDA C text and the launches of one call. See ARCHITECTURE.md."""
