"""Torch's side of the operations: operators, autograd, transforms, and the way past the dispatcher.

Nothing outside of this folder defines an operator or asks torch's private queries.
"""
