"""This tree beside an earlier revision of it, in one pair of processes that take turns."""
