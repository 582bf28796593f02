"""One task in three modalities: digits as images, as speech and as mistyped words.

`data` loads and splits them, `network` reads their rows, `words` types and mistypes.
"""
