"""One task in three modalities: digits as images, as speech and as mistyped words."""
