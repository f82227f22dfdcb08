"""Domain-free fast loops: a plain-torch form for every device and a compiled CPU form with the same numbers."""
