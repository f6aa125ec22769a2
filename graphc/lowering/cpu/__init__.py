"""CPU code: what the machine can do, kernel families as TIR generators, and object code."""
