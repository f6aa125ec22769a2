"""Fused graph → plan → TIR → object code. The only room that imports TVM, and only when code is generated."""
