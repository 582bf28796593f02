"""Speculative steps against eager torch and against transformers."""
