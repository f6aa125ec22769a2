"""Modules for NVIDIA GPUs: from CUDA C and launches (`artifact/device.py`) to a folder, and back to what one calls."""
