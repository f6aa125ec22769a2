"""placeholder"""
def emit_turned(nest): raise AssertionError
