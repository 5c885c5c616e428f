"""Names that a file may have, and that paths, Slurm or shells may stumble over."""

ODD = [
    "my study",
    "a,b",
    ".hidden",
    "-rf",
    "study (1)",
    "a+b",
    "100%j",
    "it's",
    'a "quote"',
    "[1-3]",
    "line\nbreak",
    "étude 研究",
    "e\N{COMBINING ACUTE ACCENT}",
    "~x",
    "a/b",
    "x" * 252,
    "研" * 84,
]
