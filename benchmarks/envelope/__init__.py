"""``Envelope.update`` beside NumPy, and how M follows ratios that drift."""
