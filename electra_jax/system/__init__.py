"""Files, locks, signals and streams of the operating system, which may fail at any time."""
