"""Cases, torch's forms of them, timing, and the tables: what every benchmark uses."""
