"""What a decision is: the uniforms and seeds that every backend obeys.

Imports torch alone. ``philox`` is the generator and the uniforms made of its words.
"""
