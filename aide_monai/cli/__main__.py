"""``python -m aide_monai.cli``: what torchrun starts in each process."""

from aide_monai.cli.main import main

main()
