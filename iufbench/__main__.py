"""``python -m iufbench`` is the command ``iufbench``."""

from iufbench.cli.main import main

if __name__ == "__main__":
    main(prog_name="iufbench")
