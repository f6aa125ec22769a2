"""Convolutions and their gradients by the weights."""
