"""Prompts that ask for a way from one number to another, such as ``7 to 18 :``."""

TO, COLON = "to", ":"


def prompt_of(start: int, goal: int) -> str:
    """Return the prompt of a problem."""
    return f"{start} {TO} {goal} {COLON}"


def ends_of(prompt: str) -> tuple[int, int]:
    """Return the start and the goal of a prompt."""
    words = prompt.split()
    if len(words) != 4 or words[1::2] != [TO, COLON] or not all(w.isdecimal() for w in words[::2]):
        raise ValueError(f"a prompt must be like {prompt_of(7, 14)!r}, got {prompt!r}")
    return int(words[0]), int(words[2])
